//! Who is who: certificates, keys, tokens and names.

pub mod blocklist;
pub mod join_token;
pub mod passwords;
pub mod pki;
pub mod secret;
pub mod subject;
pub mod tls;
pub mod token;
