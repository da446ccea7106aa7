use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use queue_format::PathError;

use crate::topology::{Core, CpuSet};

/// How often the right to choose is asked for, and how long is waited in between: whoever has it needs some
/// milliseconds.
const ASKS_MAX: u32 = 200;
const ASK_PAUSE: Duration = Duration::from_millis(25);

/// Where workers of one node say which CPUs are theirs: a lock each, that the kernel drops with its holder's process.
///
/// All online CPUs of a core are locked together, whether or not they are the worker's to use. Workers that see a core
/// differently, since a CPU went offline in between or their own cpusets differ, still meet at one that both see.
#[derive(Clone, Debug)]
pub struct CpuLocks {
    dir: PathBuf,
}

/// CPUs that are this process's until it is dropped.
#[derive(Debug)]
pub struct HeldCpus {
    files: Vec<File>,
}

impl CpuLocks {
    /// In a node's state directory, which its workers share.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(state_dir: &Path) -> Result<Self, PathError> {
        let dir = state_dir.join("cpus");
        fs::create_dir_all(&dir).map_err(|source| PathError { action: "make", path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// The right to be the worker of a name, which goes on with what that one began, until it is dropped; `None` where
    /// another process has it.
    ///
    /// # Errors
    /// The lock's file cannot be made or locked.
    pub fn name(&self, instance: &str) -> Result<Option<File>, PathError> {
        self.lock(&format!("worker-{instance}"))
    }

    /// The right to look which cores are free and to take some, until it is dropped: workers that start at the same
    /// time choose one after the other. A holder that hangs is waited for no longer than some seconds: then without it.
    ///
    /// # Errors
    /// The lock's file cannot be made or locked.
    pub fn choose(&self) -> Result<Option<File>, PathError> {
        for _ in 0..ASKS_MAX {
            if let Some(lock) = self.lock("choosing")? {
                return Ok(Some(lock));
            }
            std::thread::sleep(ASK_PAUSE);
        }
        Ok(None)
    }

    /// The CPUs of cores that somebody else has.
    ///
    /// # Errors
    /// A lock's file cannot be made or locked.
    pub fn taken(&self, cores: &[Core]) -> Result<CpuSet, PathError> {
        let mut taken = Vec::new();
        for core in cores {
            if self.take(&core.siblings)?.is_err() {
                taken.extend(core.cpus.iter());
            }
        }
        Ok(taken.into_iter().collect())
    }

    /// Takes all of `cpus`, or none: then gives the first that somebody else has.
    ///
    /// # Errors
    /// A lock's file cannot be made or locked.
    pub fn take(&self, cpus: &CpuSet) -> Result<Result<HeldCpus, u32>, PathError> {
        let mut held = HeldCpus { files: Vec::new() };
        for cpu in cpus.iter() {
            match self.lock(&cpu.to_string())? {
                Some(file) => held.files.push(file),
                None => return Ok(Err(cpu)),
            }
        }
        Ok(Ok(held))
    }

    fn lock(&self, name: &str) -> Result<Option<File>, PathError> {
        let path = self.dir.join(name);
        let failed = |source| PathError { action: "lock", path: path.clone(), source };
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        match fs2::FileExt::try_lock_exclusive(&file) {
            Ok(()) => Ok(Some(file)),
            Err(e) if e.kind() == fs2::lock_contended_error().kind() => Ok(None),
            Err(e) => Err(failed(e)),
        }
    }
}

impl Drop for HeldCpus {
    fn drop(&mut self) {
        for file in &self.files {
            let _ = fs2::FileExt::unlock(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (CpuLocks::open(dir.path()).unwrap(), CpuLocks::open(dir.path()).unwrap());
        let set = |text: &str| text.parse::<CpuSet>().unwrap();
        let held = one.take(&set("0,4")).unwrap().unwrap();
        let check = |cpus: &str, expected: Option<u32>| {
            assert_eq!(other.take(&set(cpus)).unwrap().err(), expected, "{cpus}");
        };
        check("1,5", None);
        check("0,4", Some(0));
        // CPU 0 went offline since, or is not this one's.
        check("4", Some(4));
        check("3-4", Some(4));
        check("3", None);
        drop(held);
        check("0,4", None);
    }

    #[test]
    fn a_name_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let locks = CpuLocks::open(dir.path()).unwrap();
        let held = locks.name("a").unwrap();
        assert!(held.is_some() && locks.name("a").unwrap().is_none() && locks.name("b").unwrap().is_some());
        drop(held);
        assert!(locks.name("a").unwrap().is_some());
    }
}
