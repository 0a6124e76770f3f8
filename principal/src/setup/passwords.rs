//! The users in a file, and what becomes of it while the process runs.

use std::path::Path;

use tiphys_shared::kube::material::{Place, Places, Reader};
use tiphys_shared::process::options::Problem;
use tiphys_shared::security::passwords::Passwords;
use tokio_util::sync::CancellationToken;

const REMEDY: &str = "make the file with lines of user:bcrypt, as htpasswd -B does";

/// Reads the users in a file, and takes up what changes there until `cancel`. `kind` says what they are for, in figures and
/// in the log.
pub(super) async fn of(
    kind: &'static str,
    path: &Path,
    reader: &Reader,
    cancel: &CancellationToken,
) -> Result<Passwords, Problem> {
    let places = Places { key: Some(Place::File(path.to_owned())), ..Places::default() };
    let material = reader.read_all(&places).await.map_err(|problem| Problem::new(problem.what, REMEDY))?;
    let passwords =
        Passwords::new(path, &material.key).map_err(|error| Problem::new(error.to_string(), REMEDY))?;
    let users = passwords.clone();
    reader.keep_current(kind, places, material, cancel, move |material| users.replace(&material.key));
    Ok(passwords)
}
