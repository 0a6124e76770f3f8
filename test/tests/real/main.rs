//! What needs a real kube-apiserver. Built only with the feature `real-cluster`:
//!
//! ```sh
//! hack/kube.sh up --clusters 3 --crds manifests/crds --authorization RBAC -- \
//!     cargo test -p tiphys-test --features real-cluster --test real
//! ```
//!
//! Without `TIPHYS_TEST_KUBECONFIG` these tests fail, they do not skip.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "all of this is test code")]

#[path = "../suite"]
#[allow(dead_code, reason = "the embedded suite uses the rest")]
mod suite {
    pub(crate) mod conformance;
    pub(crate) mod fleet;
    pub(crate) mod managed;
}

mod managed;
mod proxy;
mod rbac;
