//! The words on the wire, generated from `proto/*.proto` at build time.
//!
//! Nothing here has behaviour. Rules live in `tiphys-shared`, servers and clients in `tiphys-principal`
//! and `tiphys-agent`. Package names, method paths and field numbers are those of `argocd-agent`, of the
//! CloudEvents specification and of pprof: they are a contract with peers that are not ours. Only `tiphys` is ours alone.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::use_self, clippy::or_fun_call)]

/// Authentication and tokens.
pub mod auth {
    tonic::include_proto!("authapi");
}

/// The principal's version.
pub mod version {
    tonic::include_proto!("versionapi");
}

/// The stream of events.
pub mod event_stream {
    tonic::include_proto!("eventstreamapi");
}

/// Container logs.
pub mod log_stream {
    tonic::include_proto!("principal.apis.logstreamapi");
}

/// Terminal sessions.
pub mod terminal_stream {
    tonic::include_proto!("terminalstreamapi");
}

/// Byte streams between two Tiphys peers.
pub mod tunnel {
    tonic::include_proto!("tiphys.tunnel");
}

/// How agents get their certificates.
pub mod join {
    tonic::include_proto!("tiphys.join");
}

/// Profiles as pprof reads them.
pub mod profile {
    tonic::include_proto!("perftools.profiles");
}

/// CloudEvents in their protobuf format.
pub mod cloudevents {
    tonic::include_proto!("io.cloudevents.v1");
}
