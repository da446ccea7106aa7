use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use queue_format::TaskSpec;

use crate::peers::{Measured, Program};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(10);

/// One connection, that waits for each answer.
struct Client(BufReader<UnixStream>);

/// A list as a reliable queue: LPUSH, LMOVE into a list of what is worked on, and LREM with the result beside it.
pub(crate) fn measure(dir: &Path, tasks: &[TaskSpec], always: bool) -> Measured {
    let (policy, promise) = if always {
        ("always", "on disk before the answer; one server's memory holds all")
    } else {
        ("everysec", "a crash of the machine loses a second; one server's memory holds all")
    };
    let who = format!("Redis, appendfsync {policy}");
    match run(dir, tasks, policy) {
        Ok([publish, complete]) => Measured::Rates { who, publish, complete, promise: promise.to_owned() },
        Err(why) => Measured::LeftOut { who, why: format!("{why}; apt-get install redis-server") },
    }
}

fn run(dir: &Path, tasks: &[TaskSpec], policy: &str) -> io::Result<[f64; 2]> {
    fs::create_dir_all(dir)?;
    // A path to a socket must be short.
    let home = tempfile::tempdir()?;
    let socket = home.path().join("socket");
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", policy]);
    command.arg("--unixsocket").arg(&socket).arg("--dir").arg(dir);
    let _server = Program(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    let started = Instant::now();
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(e) if started.elapsed() > START => return Err(e),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let mut client = Client(BufReader::new(stream));
    let bytes: Vec<Vec<u8>> = tasks.iter().map(|task| serde_json::to_vec(task).expect("JSON")).collect();
    let started = Instant::now();
    for task in &bytes {
        client.ask(&[b"LPUSH", b"pending", task])?;
    }
    let publish = tasks.len() as f64 / started.elapsed().as_secs_f64();
    let manifest = vec![b'x'; 800];
    let started = Instant::now();
    for n in 0..tasks.len() {
        let task = client.ask(&[b"LMOVE", b"pending", b"claimed", b"RIGHT", b"LEFT"])?;
        client.ask(&[b"SET", format!("result:{n}").as_bytes(), &manifest])?;
        client.ask(&[b"LREM", b"claimed", b"1", &task])?;
    }
    Ok([publish, tasks.len() as f64 / started.elapsed().as_secs_f64()])
}

impl Client {
    /// Sends a command in RESP, and gives the answer: a line, or a string of bytes.
    fn ask(&mut self, words: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend(format!("${}\r\n", word.len()).bytes());
            request.extend(*word);
            request.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&request)?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(io::ErrorKind::UnexpectedEof)?;
        if kind == "-" {
            return Err(io::Error::other(rest.to_owned()));
        }
        if kind != "$" {
            return Ok(rest.as_bytes().to_vec());
        }
        let length: usize = rest.parse().map_err(|_| io::Error::other("no such element"))?;
        let mut bytes = vec![0; length + 2];
        io::Read::read_exact(&mut self.0, &mut bytes)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}
