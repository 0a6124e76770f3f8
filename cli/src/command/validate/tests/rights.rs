//! What is found by somebody who may not look at everything.

use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use kube::core::Status;

use super::*;

/// The same namespace for somebody who may do nothing with these.
fn closed(site: &Site, what: &'static [&'static str]) -> Site {
    let client = site.client.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            let path = request.uri().path().to_owned();
            if !what.iter().any(|what| path.ends_with(what)) {
                return client.send(request).await;
            }
            let status = Status::failure(&format!("{path} is forbidden"), "Forbidden").with_code(403);
            let body = Body::from(serde_json::to_vec(&status).unwrap());
            Ok(Response::builder().status(403).body(body).unwrap())
        }
    });
    Site { client: Client::new(service, "default"), ..site.clone() }
}

#[tokio::test]
async fn what_may_not_be_looked_at_is_said_and_nothing_is_concluded_from_it() {
    let world = sound().await;
    world.act(Create(Control, "application", application(json!({})))).await;
    let own = OwnOptions::default();
    let now = clock::now();
    let all = [
        &["/namespaces", "/v1alpha1/applications"][..],
        &["/secrets"],
        &["/configmaps", "/configmaps/argocd-agent-params"],
        &["/deployments"],
        &["/statefulsets", "/appprojects"],
    ];
    for what in all {
        let control = gather::control_plane(&closed(&world.control, what), &own).await.unwrap();
        let edge = gather::edge(&closed(&world.edge, what), &own, false).await.unwrap();
        let found = judge(&Snapshot { now, control, edge: Some(edge) });
        assert!(found.iter().all(|finding| finding.check == "not-checked"), "{what:?}: {found:#?}");
        for path in what.iter().filter(|path| path.matches('/').count() == 1) {
            let said = format!("{path} is forbidden");
            for side in ["control plane", "agent"] {
                let is_said = |it: &Finding| it.side == side && it.what.ends_with(&said);
                assert!(found.iter().any(is_said), "{side} {said}: {found:#?}");
            }
        }
    }
    // Rights in the namespace do not keep what is wrong there from being found.
    world.act(Delete(Control, "secret", "argocd-agent-jwt")).await;
    let control = gather::control_plane(&closed(&world.control, all[0]), &own).await.unwrap();
    let found = judge(&Snapshot { now, control, edge: None });
    let checks: Vec<_> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["jwt-missing", "not-checked", "not-checked"]);
    let nobody = Site { client: Client::new(tower::service_fn(nobody), "default"), ..world.control.clone() };
    assert!(gather::control_plane(&nobody, &own).await.is_err(), "who is not known is told so");
}

async fn nobody(_: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
    let status = Status::failure("Unauthorized", "Unauthorized").with_code(401);
    let body = Body::from(serde_json::to_vec(&status).unwrap());
    Ok(Response::builder().status(401).body(body).unwrap())
}
