#!/bin/sh
# Runs once inside a fresh Debian root, before it becomes an image: what every Python shares.
#   root.sh UV_REQUIREMENT
set -eu
uv_requirement=$1
export HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive

# Certificates that the host trusts and Debian does not know: a site's own, a proxy's.
if [ -s /tmp/host-certificates.pem ]; then
    mkdir -p /usr/local/share/ca-certificates/host
    awk '
        /-----BEGIN CERTIFICATE-----/ { inside = 1; body = ""; text = ""; next }
        /-----END CERTIFICATE-----/ {
            if (inside && !(body in known)) {
                known[body] = 1
                if (FILENAME == "/tmp/host-certificates.pem") {
                    file = sprintf("/usr/local/share/ca-certificates/host/%03d.crt", ++count)
                    printf "-----BEGIN CERTIFICATE-----\n%s-----END CERTIFICATE-----\n", text > file
                    close(file)
                }
            }
            inside = 0
        }
        inside { gsub(/[ \t\r]/, ""); body = body $0; text = text $0 "\n" }
    ' /etc/ssl/certs/ca-certificates.crt /tmp/host-certificates.pem
fi
update-ca-certificates --fresh >/dev/null

# Tests run as an ordinary user.
useradd --create-home --uid 1000 --shell /bin/bash testbed

# Manual pages are left out, but some packages' scripts fail without their directories.
for section in 1 2 3 4 5 6 7 8; do mkdir -p "/usr/share/man/man$section"; done

python3 -m venv /tmp/uv
/tmp/uv/bin/python -m pip install --quiet --no-cache-dir "$uv_requirement"
install -m 0755 /tmp/uv/bin/uv /tmp/uv/bin/uvx /usr/local/bin/
/usr/local/bin/uv --version

rm -f /var/cache/apt/*.bin
rm -rf /tmp/uv /tmp/host-certificates.pem /root/.cache /tmp/root.sh
