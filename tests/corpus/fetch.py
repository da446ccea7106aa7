"""Download source distributions from whichever package index this machine's pip is set up for.

Usage: fetch.py DIRECTORY

DIRECTORY/requests.json   [{"package": …, "file": …, "sha256": …}]   (without sha256: only look it up)
DIRECTORY/<file>          what was downloaded
DIRECTORY/report.json     [{"file": …, "sha256": …, "uploaded_at": …} or {"file": …, "error": …}]

pip knows the index, the proxy, the certificates and the credentials of the machine, so its own session is
used. An index answers in JSON or, where it knows only HTML, in HTML: both are read.
"""

import hashlib
import json
import os
import re
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin

from pip._internal.commands import create_command

ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
FILE_BYTES_MAX = 32 << 20
TRIES_MAX = 3


class Anchors(HTMLParser):
    """The attributes of every link of a page."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.found.append(dict(attrs))


def pip_session():
    command = create_command("download")
    options, _ = command.parse_args([])
    if options.no_index or not options.index_url:
        raise SystemExit("pip is configured without a package index (no-index): set index-url in pip.conf")
    return command._build_session(options), [options.index_url, *options.extra_index_urls]


def get(session, url, **kwargs):
    """One answer of the index; transient errors are tried again."""
    error = None
    for _ in range(TRIES_MAX):
        try:
            answer = session.get(url, **kwargs)
            if answer.status_code < 500:
                return answer
            error = f"status {answer.status_code}"
        except Exception as failure:  # requests is pip's own copy: its exceptions have no stable name
            error = failure
    raise LookupError(f"{url}: {error}")


def listing(session, index, package):
    """File name → (address, sha256, upload time) of a package's page."""
    page = f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', package).lower()}/"
    answer = get(session, page, headers={"Accept": ACCEPT})
    if answer.status_code != 200:
        return {}
    if "json" in answer.headers.get("Content-Type", ""):
        return {
            f["filename"]: (urljoin(answer.url, f["url"]), f["hashes"].get("sha256", ""), f.get("upload-time", ""))
            for f in answer.json()["files"]
        }
    anchors = Anchors()
    anchors.feed(answer.text)
    files = {}
    for anchor in anchors.found:
        address, _, fragment = urljoin(answer.url, anchor.get("href") or "").partition("#")
        digest = fragment[len("sha256="):] if fragment.startswith("sha256=") else ""
        name = unquote(address.rsplit("/", 1)[-1])
        files[name] = (address, digest, anchor.get("data-upload-time") or "")
    return files


def fetch(session, indexes, pages, request, directory):
    package, name = request["package"], request["file"]
    for index in indexes:
        if (index, package) not in pages:
            pages[index, package] = listing(session, index, package)
        if name in pages[index, package]:
            address, digest, uploaded_at = pages[index, package][name]
            break
    else:
        raise LookupError(f"the package index has no file {name} for {package}")
    if "sha256" not in request:
        return {"file": name, "sha256": digest, "uploaded_at": uploaded_at}
    answer = get(session, address, headers={"Accept-Encoding": "identity"})
    if answer.status_code != 200:
        raise LookupError(f"{name}: the package index answers with status {answer.status_code}")
    if len(answer.content) > FILE_BYTES_MAX:
        raise LookupError(f"{name}: larger than {FILE_BYTES_MAX} bytes")
    seen = hashlib.sha256(answer.content).hexdigest()
    if seen != request["sha256"]:
        raise LookupError(f"{name}: sha256 is {seen}, expected {request['sha256']}")
    with open(os.path.join(directory, name), "wb") as out:
        out.write(answer.content)
    return {"file": name, "sha256": seen, "uploaded_at": uploaded_at}


def main(directory):
    with open(os.path.join(directory, "requests.json"), encoding="utf-8") as file:
        requests = json.load(file)
    session, indexes = pip_session()
    pages, report = {}, []
    for request in requests:
        try:
            report.append(fetch(session, indexes, pages, request, directory))
        except LookupError as error:
            report.append({"file": request["file"], "error": str(error)})
    with open(os.path.join(directory, "report.json"), "w", encoding="utf-8") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main(sys.argv[1])
