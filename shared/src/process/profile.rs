//! Where a process spends its time: stacks of its threads, written as pprof reads them.
//!
//! A second process looks at the first from outside, by ptrace. It stops a thread that runs for the blink in which registers
//! and stack are read, and makes sense of them once the thread is running again. Nothing runs within the process that is looked
//! at, no lock of its is waited for, and its memory stays what it was; if whoever looks dies, the kernel lets go.
//!
//! What is found are addresses. pprof gives them names by the program that they belong to, so a program without symbols can be
//! profiled as well as any other.
//!
//! [`endpoint`] serves it over HTTP, [`Sampler`] is what the second process does.

mod code;
mod encode;
pub mod endpoint;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod sampler;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

pub use tiphys_proto::profile::Profile;

pub use self::encode::pack;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub use self::sampler::Sampler;

/// Time between two looks.
pub const PERIOD: Duration = Duration::from_millis(10);

/// How often each stack was seen: addresses within the instructions that ran or called, innermost first.
type Stacks = BTreeMap<Vec<u64>, u64>;

/// Why a process could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not tell of it.
    #[error("cannot read {path}: {source}")]
    Read {
        /// What.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// One of its threads could not be stopped.
    #[error("cannot stop thread {thread}: {source}")]
    Stop {
        /// Its id.
        thread: i32,
        /// Why.
        source: io::Error,
    },
    /// A profile could not be written.
    #[error("cannot pack the profile: {0}")]
    Pack(#[source] io::Error),
}

impl Error {
    /// Whether it is for lack of permission.
    pub fn is_denied(&self) -> bool {
        let (Self::Read { source, .. } | Self::Stop { source, .. } | Self::Pack(source)) = self;
        source.kind() == io::ErrorKind::PermissionDenied
    }
}
