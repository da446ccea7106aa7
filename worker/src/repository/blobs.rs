use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use nix::fcntl::{FcntlArg, fcntl};

use crate::git::Git;

/// What is read ahead of git, in bytes, and what it may write before it is read: the most that a pipe may hold where
/// nobody has set another limit (pipe(7)). The more that is, the less often the two wait for each other.
const READ_AHEAD_BYTES: usize = 1 << 18;
const PIPE_BYTES: i32 = 1 << 20;

/// The contents of objects, from one git that lives as long as this. Blocks; the objects lie on this node.
#[derive(Debug)]
pub(crate) struct Blobs {
    git: Child,
    /// `None` once all that will ever be asked is on its way.
    asked: Option<ChildStdin>,
    told: BufReader<ChildStdout>,
}

impl Blobs {
    /// Of objects that are asked for one after the other.
    pub(crate) fn open(git: &Git) -> io::Result<Self> {
        Self::spawn(git, &["cat-file", "--batch"])
    }

    /// Of these objects, one a line, in their order.
    pub(crate) fn of(git: &Git, objects: String) -> io::Result<Self> {
        let mut blobs = Self::spawn(git, &["cat-file", "--batch", "--buffer"])?;
        if let Some(mut asked) = blobs.asked.take() {
            // A git that has ended reads no more, which whoever reads its answers learns.
            std::thread::Builder::new().spawn(move || asked.write_all(objects.as_bytes()))?;
        }
        Ok(blobs)
    }

    fn spawn(git: &Git, args: &[&str]) -> io::Result<Self> {
        let mut git =
            git.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let asked = git.stdin.take();
        let told = git.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        // A pipe of the usual size does too.
        let _ = fcntl(&told, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Ok(Self { git, asked, told: BufReader::with_capacity(READ_AHEAD_BYTES, told) })
    }

    /// Asks for an object, which comes next.
    pub(crate) fn ask(&mut self, object: &str) -> io::Result<()> {
        let asked = self.asked.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(asked, "{object}")?;
        asked.flush()
    }

    /// The next object's size in bytes and its content, of which `read` may leave some.
    pub(crate) fn next<T>(
        &mut self,
        read: impl FnOnce(u64, &mut dyn Read) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        // `<object> <type> <size>`, or `<object> missing`.
        let size = line.rsplit(' ').next().and_then(|size| size.trim_end().parse().ok());
        let size: u64 =
            size.ok_or_else(|| io::Error::other(format!("git cat-file: {:?}", line.trim_end())))?;
        let mut content = (&mut self.told).take(size);
        let given = read(size, &mut content)?;
        io::copy(&mut content, &mut io::sink())?;
        let is_whole = content.limit() == 0;
        let mut newline = [0];
        self.told.read_exact(&mut newline)?;
        if is_whole { Ok(given) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        // It only reads.
        let _ = self.git.kill();
        let _ = self.git.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn objects_come_in_their_order_however_much_of_them_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let git = Git::new(dir.path(), Duration::from_secs(60));
        assert!(git.command(&["init", "--quiet"]).status().unwrap().success());
        let object = |content: &str| {
            std::fs::write(dir.path().join("content"), content).unwrap();
            let printed = git.command(&["hash-object", "-w", "content"]).output().unwrap();
            String::from_utf8(printed.stdout).unwrap().trim().to_owned()
        };
        let (long, empty, two) = (object(&"x".repeat(1 << 20)), object(""), object("a\n\n"));
        let text = |_: u64, content: &mut dyn Read| io::read_to_string(content);
        let mut all = Blobs::of(&git, format!("{long}\n{empty}\n{two}\n")).unwrap();
        assert_eq!(all.next(|size, _| Ok(size)).unwrap(), 1 << 20);
        assert_eq!(all.next(text).unwrap(), "");
        assert_eq!(all.next(text).unwrap(), "a\n\n");
        assert!(all.next(text).is_err(), "there are no more");
        let mut asked = Blobs::open(&git).unwrap();
        for _ in 0..2 {
            asked.ask(&"0".repeat(40)).unwrap();
            assert!(asked.next(text).is_err(), "it is missing");
            asked.ask(&two).unwrap();
            assert_eq!(asked.next(text).unwrap(), "a\n\n");
        }
    }
}
