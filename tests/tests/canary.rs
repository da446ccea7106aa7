//! Keys that a worker is given appear nowhere but in the worker: not in what it starts, builds, writes or publishes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::query_parameters::{
    BuildImageOptionsBuilder, InspectContainerOptions, ListImagesOptionsBuilder, RemoveImageOptionsBuilder,
};
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, TryStreamExt};
use queue_format::{Counts, LABEL_SPOOL, Spool};
use tests::harness::{House, ci_corpus, engine, printed, wait_with_bound};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const RUN_MAX: Duration = Duration::from_mins(15);
const LOOK: Duration = Duration::from_millis(100);
const IMAGE: &str = "openswe-python-3.11";
/// How compressed layers begin; engines write plain ones, or, where they keep them as they are pulled, the first.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const TASK: &str = "xmltodict-0.14.2";

/// Whom the keys were given to.
const HOLDERS: [&str; 4] = ["bottega", "bottega-master", "bottega-worker", "bottega-janitor"];

/// A key, and what it looks like in disguise.
fn disguises(key: &str) -> Vec<String> {
    let mut hex = String::new();
    for byte in key.bytes() {
        write!(hex, "{byte:02x}").expect("a string takes it");
    }
    // The middle of a text is encoded in one of three ways, by what stands before it.
    let encoded = (0..3).map(|before| {
        let text = base64(&[&vec![b'x'; before], key.as_bytes()].concat());
        text[4..text.len() - 4].to_owned()
    });
    [key.to_owned(), hex.to_uppercase(), hex].into_iter().chain(encoded).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(DIGITS[(bits & 63) as usize]);
    let encode = |chunk: &[u8]| {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let text: String = [18, 12, 6, 0].map(|shift| digit(bits >> shift)).iter().collect();
        text[..=chunk.len()].to_owned() + &"=".repeat(3 - chunk.len())
    };
    bytes.chunks(3).map(encode).collect()
}

/// The files at or below `paths` that hold one of the patterns.
fn files_with(patterns: &Path, paths: &[&Path]) -> Vec<PathBuf> {
    let found =
        Command::new("grep").args(["-raFl", "-f"]).arg(patterns).args(paths).output().expect("grep runs");
    assert!(found.status.code().is_some_and(|code| code < 2), "{}", printed(&found));
    String::from_utf8_lossy(&found.stdout).lines().map(PathBuf::from).collect()
}

/// The files of an image's archive, layers among them, that hold one of the patterns; in a compressed one it is looked
/// for in what it holds.
fn entries_with(patterns: &Path, archive: &Path) -> Vec<PathBuf> {
    let mut archive = tar::Archive::new(fs::File::open(archive).expect("an archive"));
    let mut found = Vec::new();
    for entry in archive.entries().expect("an archive") {
        let entry = entry.expect("an entry");
        let path = entry.path().expect("a name").into_owned();
        let mut bytes = BufReader::new(entry);
        let begin = bytes.fill_buf().expect("readable");
        assert!(!begin.starts_with(&ZSTD), "{}: what zstd compressed cannot be read here", path.display());
        let has_one = match begin.starts_with(&GZIP) {
            true => has_one(patterns, &mut MultiGzDecoder::new(bytes)),
            false => has_one(patterns, &mut bytes),
        };
        if has_one {
            found.push(path);
        }
    }
    found
}

fn has_one(patterns: &Path, bytes: &mut dyn Read) -> bool {
    // It counts lines to the end: one that ended at the first would close the pipe.
    let mut grep = Command::new("grep");
    grep.args(["-acF", "-f"]).arg(patterns).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut grep = grep.spawn().expect("grep runs");
    io::copy(bytes, &mut grep.stdin.take().expect("piped")).expect("it reads");
    let ended = grep.wait_with_output().expect("it ends");
    assert!(ended.status.code().is_some_and(|code| code < 2), "{}", printed(&ended));
    String::from_utf8_lossy(&ended.stdout).trim() != "0"
}

fn archive_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *bytes).expect("written");
    }
    archive.into_inner().expect("written")
}

#[test]
fn what_is_in_a_layer_is_found_compressed_or_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (patterns, image) = (dir.path().join("patterns"), dir.path().join("image.tar"));
    fs::write(&patterns, "sk-one\nsk-two").expect("written");
    let layer = |text: &str| archive_of(&[("etc/file", text.as_bytes())]);
    let gzipped = |bytes: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).expect("written");
        encoder.finish().expect("written")
    };
    let files = [
        ("a", layer("x sk-one x")),
        ("b", layer("nothing")),
        ("c", gzipped(&layer("x sk-two x"))),
        ("d", gzipped(&layer("nothing"))),
        ("e", Vec::new()),
    ];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    fs::write(&image, archive_of(&files)).expect("written");
    assert_eq!(entries_with(&patterns, &image), ["a", "c"].map(PathBuf::from));
}

/// What is seen of processes and containers while everything runs.
#[derive(Debug, Default)]
struct Seen {
    containers: BTreeSet<String>,
    with_a_key: BTreeSet<String>,
    /// Which of those that the keys were given to had one.
    holders: BTreeSet<String>,
}

impl Seen {
    async fn look(&mut self, house: &House, spool: &Spool, needles: &[String]) {
        let has_key = |text: &str| needles.iter().any(|needle| text.contains(needle.as_str()));
        for process in fs::read_dir("/proc").expect("listed").flatten() {
            let exe = fs::read_link(process.path().join("exe")).unwrap_or_default();
            let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let texts =
                ["environ", "cmdline"].map(|file| fs::read(process.path().join(file)).unwrap_or_default());
            let texts = texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if !texts.iter().any(|text| has_key(text)) {
                continue;
            }
            match HOLDERS.contains(&name.as_str()) {
                true => self.holders.insert(name),
                false => self.with_a_key.insert(format!("{}: {}", exe.display(), texts[1])),
            };
        }
        let engine = engine().expect("an address");
        for id in house.containers(spool).await.unwrap_or_default() {
            let Ok(found) = engine.inspect_container(&id, None::<InspectContainerOptions>).await else {
                continue;
            };
            let text = format!("{found:?}");
            if has_key(&text) {
                self.with_a_key.insert(text);
            }
            self.containers.insert(id);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_appear_nowhere_but_in_the_worker() {
    let corpus = ci_corpus(Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus"));
    let house = Arc::new(House::new().expect("a house"));
    let outside = tempfile::tempdir().expect("a directory");
    let keys = [format!("sk-credential-{}", Uuid::now_v7()), format!("sk-decoy-{}", Uuid::now_v7())];
    let needles: Vec<String> = keys.iter().flat_map(|key| disguises(key)).collect();
    let patterns = outside.path().join("patterns");
    fs::write(&patterns, needles.join("\n")).expect("written");
    let credentials = outside.path().join("credentials");
    fs::create_dir(&credentials).expect("made");
    fs::write(credentials.join("api-key"), &keys[0]).expect("written");
    // What is looked for would be found, in each disguise.
    for (n, needle) in needles.iter().enumerate() {
        fs::write(outside.path().join("control"), format!("\0\n{n} {needle}\u{7}")).expect("written");
        assert_eq!(files_with(&patterns, &[&outside.path().join("control")]).len(), 1, "{needle}");
    }
    let b64 = base64(format!("{{\"key\":\"{}\"}}", keys[0]).as_bytes());
    assert!(needles.iter().any(|needle| b64.contains(needle.as_str())), "{b64}");

    let bin = house.path("bin");
    fs::create_dir(&bin).expect("made");
    let script = "#!/bin/sh\nenv > \"$0.$$.environment\"\nPATH=${PATH#*:} exec git \"$@\"\n";
    fs::write(bin.join("git"), script).expect("written");
    fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).expect("made executable");

    let bottega = |args: &[&str]| {
        let ran = house.bottega(args).output().expect("it runs");
        assert!(ran.status.success(), "{args:?}: {}", printed(&ran));
    };
    bottega(&["init"]);
    let rows = fs::read_to_string(corpus.join("tasks.jsonl")).expect("made");
    let row = rows.lines().find(|row| row.contains(&format!("\"{TASK}\""))).expect("it is marked for CI");
    fs::write(house.path("rows.jsonl"), row).expect("written");
    let template = format!("{}/repositories/{{owner}}+{{name}}/repo", corpus.display());
    bottega(&["submit", "--repositories", &template, &house.path("rows.jsonl").display().to_string()]);
    let tell = "env; tr '\\0' '\\n' </proc/self/environ; tr '\\0' '\\n' </proc/$PPID/environ; cat /proc/self/mountinfo; sleep 1";
    bottega(&["run", "--name", "native", "--native", "--", "sh", "-c", tell]);
    bottega(&["run", "--name", "contained", IMAGE, "--", "sh", "-c", &tell.replace("$PPID", "1")]);

    let config = house.path("bottega.toml");
    fs::write(&config, "[worker]\nnative = true\n").expect("written");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut up = house.up(&["--config", &config.display().to_string()]);
    up.env("CREDENTIALS_DIRECTORY", &credentials).env("ANTHROPIC_API_KEY", &keys[1]).env("PATH", path);
    let child = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let ending = tokio::task::spawn_blocking(move || wait_with_bound(child, RUN_MAX));
    let spool = Spool::open(&house.spool_dir()).expect("a spool");
    let mut seen = Seen::default();
    while !ending.is_finished() {
        seen.look(&house, &spool, &needles).await;
        tokio::time::sleep(LOOK).await;
    }
    let ended = ending.await.expect("it was waited for").expect("it ends by itself");
    let shown = printed(&ended);
    assert!(ended.status.success(), "{shown}");
    let done: usize = Counts::of(&spool.all().expect("listed")).done.values().sum();
    assert_eq!(done, 3, "{shown}");

    assert!(!seen.containers.is_empty(), "no container was seen");
    assert_eq!(seen.with_a_key, BTreeSet::new());
    assert!(seen.holders.contains("bottega-worker"), "the worker had none itself: {:?}", seen.holders);
    assert!(needles.iter().all(|needle| !shown.contains(needle.as_str())), "{shown}");
    is_asked_with_its_key(&house, row, &template, &credentials, &keys[0], &needles).await;

    let calls = fs::read_dir(&bin).expect("listed").count() - 1;
    assert!(calls > 0, "git was not called by way of {}", bin.display());
    assert_eq!(files_with(&patterns, &[&house.path("")]), Vec::<PathBuf>::new());
    look_into_images(&spool, &needles, &patterns, outside.path()).await;
}

/// An endpoint that repeats the key in what it says: it is kept nowhere.
async fn is_asked_with_its_key(
    house: &House,
    row: &str,
    template: &str,
    credentials: &Path,
    key: &str,
    needles: &[String],
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1", listener.local_addr().expect("an address"));
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let serving = tokio::spawn({
        let asked = Arc::clone(&asked);
        async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let said = authorization_of(&mut client).await;
                let body = format!("no use for {said}");
                let head = format!(
                    "HTTP/1.1 400 Bad Request\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                asked.lock().expect("nobody panics").push(said);
                let _ = client.write_all((head + &body).as_bytes()).await;
            }
        }
    });
    let config = house.path("agents.toml");
    let text = format!(
        "[worker]\nbrain = \"agents\"\n[[worker.agents.endpoints]]\nname = \"main\"\nurl = \"{url}\"\nmodel = \"m\"\nkey = \"api-key\"\n"
    );
    fs::write(&config, text).expect("written");
    fs::write(house.path("other.jsonl"), row.replace(TASK, "xmltodict-0.14.3")).expect("written");
    let rows = house.path("other.jsonl").display().to_string();
    let ran = house.bottega(&["submit", "--repositories", template, &rows]).output().expect("it runs");
    assert!(ran.status.success(), "{}", printed(&ran));
    let mut up = house.up(&["--config", &config.display().to_string()]);
    up.env("CREDENTIALS_DIRECTORY", credentials);
    let child = up.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let ending = tokio::task::spawn_blocking(move || wait_with_bound(child, RUN_MAX));
    let ended = ending.await.expect("it was waited for").expect("it ends by itself");
    let shown = printed(&ended);
    assert!(needles.iter().all(|needle| !shown.contains(needle.as_str())), "{shown}");
    serving.abort();
    let asked = asked.lock().expect("nobody panics").clone();
    assert!(asked.contains(&format!("Bearer {key}")), "{asked:?}\n{shown}");
}

/// Reads a whole request, and gives that header of it.
async fn authorization_of(client: &mut TcpStream) -> String {
    let mut client = tokio::io::BufReader::new(client);
    let (mut length, mut authorization, mut line) = (0, String::new(), String::new());
    while client.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        let (name, value) = line.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => value.trim().clone_into(&mut authorization),
            _ => {}
        }
        line.clear();
    }
    let _ = client.read_exact(&mut vec![0; length]).await;
    authorization
}

/// Configuration, history and every layer of all that was built.
async fn look_into_images(spool: &Spool, needles: &[String], patterns: &Path, outside: &Path) {
    let engine = engine().expect("an address");
    let filters = [("label".to_owned(), vec![format!("{LABEL_SPOOL}={}", spool.id())])].into();
    let options = ListImagesOptionsBuilder::new().all(true).filters(&filters).build();
    let images = engine.list_images(Some(options)).await.expect("listed");
    assert!(!images.is_empty(), "an image was built");
    for image in &images {
        let found = engine.inspect_image(&image.id).await.expect("it is there");
        let history = engine.image_history(&image.id).await.expect("it is there");
        let text = format!("{found:?} {history:?}");
        assert!(needles.iter().all(|needle| !text.contains(needle.as_str())), "{text}");
    }
    // One more image, with something to be found in its layer.
    let control = Uuid::now_v7().to_string();
    let image = format!("bottega-test-canary-{control}");
    let dockerfile = format!("FROM {IMAGE}\nCOPY control /control\n");
    let text = format!("the control is {control}.");
    let context = archive_of(&[("Dockerfile", dockerfile.as_bytes()), ("control", text.as_bytes())]);
    let options = BuildImageOptionsBuilder::new().t(&image).networkmode("none").build();
    let built = engine.build_image(options, None, Some(bollard::body_full(context.into())));
    built.try_collect::<Vec<_>>().await.expect("it is built");
    let file = outside.join("images.tar");
    let mut archive = fs::File::create(&file).expect("made");
    let names: Vec<&str> = images.iter().map(|image| image.id.as_str()).chain([image.as_str()]).collect();
    let mut pieces = std::pin::pin!(engine.export_images(&names));
    while let Some(piece) = pieces.next().await {
        archive.write_all(&piece.expect("it is exported")).expect("written");
    }
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    engine.remove_image(&image, Some(options), None).await.expect("it is removed");
    let controls = outside.join("controls");
    fs::write(&controls, &text).expect("written");
    assert_eq!(entries_with(&controls, &file).len(), 1, "what is in a layer is found");
    assert_eq!(entries_with(patterns, &file), Vec::<PathBuf>::new());
}
