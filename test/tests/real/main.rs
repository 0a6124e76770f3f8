//! What needs a real kube-apiserver. Built only with the feature `real-cluster`:
//!
//! ```sh
//! cargo build -p tiphys
//! hack/kube.sh up --clusters 3 --pods --crds manifests/crds --authorization RBAC -- \
//!     cargo test -p tiphys-test --features real-cluster --test real
//! ```
//!
//! Without `TIPHYS_TEST_KUBECONFIG`, kubectl, or `--pods` these tests fail, they do not skip.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "all of this is test code")]

#[path = "../suite"]
#[allow(dead_code, unused_imports, reason = "the embedded suite uses the rest")]
mod suite {
    pub(crate) mod conformance;
    pub(crate) mod fleet;
    pub(crate) mod managed;
}

mod kubectl;
mod managed;
mod pods;
mod proxy;
mod rbac;
