//! Looks at a process from another one.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use framehop::{CacheNative, MayAllocateDuringUnwind, UnwindRegsNative, Unwinder as _, UnwinderNative};
use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tiphys_proto::profile::Profile;

use super::code::{self, Mapping};
use super::{Error, Stacks, encode};

/// How deep stacks are followed; what is further out is cut off.
const MAX_FRAMES: usize = 256;
/// How much of a stack is read, in bytes.
const STACK: usize = 128 * 1024;

/// What is known of a process that is looked at, and what was seen of it.
pub struct Sampler {
    pid: i32,
    memory: File,
    code: Vec<Mapping>,
    unwinder: UnwinderNative<Vec<u8>, MayAllocateDuringUnwind>,
    cache: CacheNative<MayAllocateDuringUnwind>,
    stack: Vec<u8>,
    stacks: Stacks,
    looks: u64,
}

impl Sampler {
    /// Learns what code a process has.
    ///
    /// # Errors
    /// [`Error::Read`], if there is no such process or its memory may not be read.
    pub fn new(pid: i32) -> Result<Self, Error> {
        let memory = read(format!("/proc/{pid}/mem"), |path| File::open(path))?;
        let maps = read(format!("/proc/{pid}/maps"), |path| fs::read_to_string(path))?;
        let program = read(format!("/proc/{pid}/exe"), |path| fs::read_link(path))?;
        let program = program.to_string_lossy();
        let mut code = code::mappings(&maps, &program);
        let mut unwinder = UnwinderNative::new();
        for mapping in &mut code {
            // The program may have been replaced since it was started; the kernel still has it.
            let open = |file: &str| match file == program {
                true => File::open(format!("/proc/{pid}/exe")),
                false => File::open(file),
            };
            let bytes = |range: std::ops::Range<u64>| {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
                memory.read_exact_at(&mut bytes, range.start).ok()?;
                Some(bytes)
            };
            if let Some(module) = code::load(mapping, open, bytes) {
                unwinder.add_module(module);
            }
        }
        let (cache, stack) = (CacheNative::new(), vec![0; STACK]);
        Ok(Self { pid, memory, code, unwinder, cache, stack, stacks: Stacks::new(), looks: 0 })
    }

    /// Looks at every thread that runs, or waits for nothing but a processor.
    ///
    /// # Errors
    /// [`Error`], if the process is gone or does not let itself be stopped.
    pub fn look(&mut self) -> Result<(), Error> {
        let threads = read(format!("/proc/{}/task", self.pid), |path| fs::read_dir(path))?;
        for thread in threads.flatten() {
            let Some(id) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has ended meanwhile has nothing to tell.
            let Ok(state) = fs::read_to_string(thread.path().join("stat")) else { continue };
            if !runs(&state) {
                continue;
            }
            let fail = |errno: Errno| Error::Stop { thread: id, source: errno.into() };
            if let Some((registers, read)) = self.stop(Pid::from_raw(id)).map_err(fail)? {
                let stack = self.walk(&registers, read);
                *self.stacks.entry(stack).or_default() += 1;
            }
        }
        self.looks += 1;
        Ok(())
    }

    /// What was seen from `began`, since the Unix epoch, and during `took`.
    pub fn profile(&self, began: Duration, took: Duration) -> Profile {
        encode::profile(&self.stacks, &self.code, (began, took), self.looks)
    }

    /// Stops a thread and lets it go on; its registers, and how much of its stack was read. Nothing if it has ended.
    fn stop(&mut self, thread: Pid) -> Result<Option<(user_regs_struct, usize)>, Errno> {
        let seized = ptrace::seize(thread, ptrace::Options::empty());
        if gone(seized)?.is_none() || gone(ptrace::interrupt(thread))?.is_none() {
            return Ok(None);
        }
        // A signal that came first stops it as well, and is then passed on.
        let signal = loop {
            match waitpid(thread, Some(WaitPidFlag::__WALL)) {
                Ok(WaitStatus::Stopped(_, signal)) => break Some(signal),
                Ok(WaitStatus::PtraceEvent(..)) => break None,
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => {
                    return Ok(None);
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        };
        let seen = gone(ptrace::getregs(thread));
        let seen = seen.map(|registers| {
            // What is beyond the end of the stack is missing.
            registers.map(|registers| {
                (registers, self.memory.read_at(&mut self.stack, top(&registers)).unwrap_or(0))
            })
        });
        gone(ptrace::detach(thread, signal))?;
        seen
    }

    fn walk(&mut self, registers: &user_regs_struct, read: usize) -> Vec<u64> {
        let (top, stack) = (top(registers), self.stack.get(..read).unwrap_or_default());
        let mut word = |address: u64| {
            let at = usize::try_from(address.checked_sub(top).ok_or(())?).map_err(drop)?;
            let bytes = stack.get(at..).and_then(|bytes| bytes.first_chunk()).ok_or(())?;
            Ok(u64::from_le_bytes(*bytes))
        };
        let (here, registers) = unwind_registers(registers);
        let mut frames = self.unwinder.iter_frames(here, registers, &mut self.cache, &mut word);
        let mut found = Vec::new();
        while found.len() < MAX_FRAMES
            && let Ok(Some(frame)) = frames.next()
        {
            found.push(frame.address_for_lookup());
        }
        found
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").field("pid", &self.pid).field("looks", &self.looks).finish_non_exhaustive()
    }
}

fn read<T>(path: String, read: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, Error> {
    read(Path::new(&path)).map_err(|source| Error::Read { path, source })
}

/// Whether a thread runs or could, by its line in `/proc`: what stands in parentheses is a name of anybody's choice.
fn runs(stat: &str) -> bool {
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('R'))
}

/// Nothing where a thread has ended.
fn gone<T>(result: Result<T, Errno>) -> Result<Option<T>, Errno> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ESRCH) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(target_arch = "x86_64")]
fn top(registers: &user_regs_struct) -> u64 {
    registers.rsp
}

#[cfg(target_arch = "x86_64")]
fn unwind_registers(registers: &user_regs_struct) -> (u64, UnwindRegsNative) {
    (registers.rip, UnwindRegsNative::new(registers.rip, registers.rsp, registers.rbp))
}

#[cfg(target_arch = "aarch64")]
fn top(registers: &user_regs_struct) -> u64 {
    registers.sp
}

#[cfg(target_arch = "aarch64")]
fn unwind_registers(registers: &user_regs_struct) -> (u64, UnwindRegsNative) {
    (registers.pc, UnwindRegsNative::new(registers.regs[30], registers.sp, registers.regs[29]))
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Ends what it was started for.
    struct Busy(Child);

    impl Drop for Busy {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn a_process_that_works_is_seen_and_goes_on() {
        let mut busy = Busy(
            Command::new("sh")
                .args(["-c", "echo; while :; do :; done"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        // Once it has said something it is the shell, not yet a copy of this process, that works.
        io::Read::read_exact(busy.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let mut sampler = Sampler::new(busy.0.id().cast_signed()).unwrap();
        while sampler.stacks.values().sum::<u64>() < 20 {
            sampler.look().unwrap();
        }
        assert!(busy.0.try_wait().unwrap().is_none());
        let profile = sampler.profile(Duration::ZERO, Duration::from_secs(1));
        let shell = fs::read_link(format!("/proc/{}/exe", busy.0.id())).unwrap();
        assert_eq!(profile.string_table[profile.mapping[0].filename as usize], shell.to_str().unwrap());
        let inside = profile.location.iter().filter(|location| location.mapping_id == 1).count();
        assert!(inside > 0, "{profile:?}");
        assert!(profile.sample.iter().any(|sample| sample.location_id.len() > 2), "{profile:?}");
        assert!(profile.location.iter().all(|location| location.address != 0), "{profile:?}");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error_that_names_it() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        child.wait().unwrap();
        let error = Sampler::new(pid).unwrap_err();
        assert!(error.to_string().contains(&pid.to_string()), "{error}");
        assert!(!error.is_denied());
    }

    #[test]
    fn a_name_does_not_pass_for_a_state() {
        assert!(runs("12 (tiphys) R 1 12"));
        assert!(!runs("12 (a) R b) S 1 12"));
        assert!(!runs(""));
    }
}
