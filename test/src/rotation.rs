//! Every certificate, CA and key is replaced while users change Applications, as the book says it is done, and it is
//! counted what that costs: connections, moments without a stream, changes.

mod peer;
mod report;
mod revocation;
mod visitor;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tiphys_shared::process::clock;
use tiphys_shared::security::pki::Ca;
use tiphys_shared::security::tls::Material;
use tiphys_shared::security::token::Issuer;
use tokio::time::Instant;

use self::peer::{Identity, dial, login, shown, use_token};
pub use self::report::{Report, Rotation};
pub use self::revocation::{Plan as RevocationPlan, Report as RevocationReport, revoke};
use self::visitor::Visitor;
use crate::installation::secrets::{
    AGENT_TLS, AUTHORITIES, PRINCIPAL_TLS, PROXY_TLS, TOKEN_KEY, put, put_pair, read,
};
use crate::installation::{DAY, Edge, Installation, old_certificate, reloads, server_certificate, until};
use crate::load::changes::Changes;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many agents, each with a cluster of its own.
    pub agents: usize,
    /// Changes per second at the control plane, over all agents.
    pub rate: f64,
    /// How long users change things; rotations are spread over it.
    pub duration: Duration,
    /// What the choices of users depend on.
    pub seed: u64,
}

/// The most agents that one run has.
const MOST: usize = 1000;
/// How many things are replaced, one after the other.
const ROTATIONS: u32 = 5;

/// Everybody, and what they prove who they are with.
struct Scene {
    installation: Installation,
    edges: Vec<Edge>,
    identities: Vec<Arc<Identity>>,
    /// Who signs at present.
    ca: Ca,
}

/// Rotates everything once.
///
/// # Errors
/// What did not go as the book says, apart from what the report counts.
pub async fn run(plan: &Plan) -> anyhow::Result<Report> {
    ensure!((1..=MOST).contains(&plan.agents), "between 1 and {MOST} agents");
    let installation = Installation::start(&[]).await?;
    let edges = installation.edges(plan.agents, &[]).await?;
    let mut identities = Vec::new();
    for edge in &edges {
        identities.push(Arc::new(Identity::of(edge).await?));
    }
    let ca = Ca::from_pem(installation.ca.certificate_pem().as_bytes(), installation.ca.key_pem().expose())?;
    let mut scene = Scene { installation, edges, identities, ca };
    let realms = scene.edges.iter().map(|edge| scene.installation.realm(edge)).collect();
    let changes = Changes::begin(realms, plan.rate, plan.seed)?;
    let visitor = Visitor::begin(scene.installation.proxy, scene.identities.clone());

    let rotations = scene.rotate_all(plan.duration).await?;
    let visits = visitor.end().await?;
    let changes = changes.end().await?;
    scene.installation.until_quiet(&scene.edges).await?;
    // Each was opened once to begin with.
    let opened: u64 = scene.edges.iter().map(|edge| edge.witness.look().opened - 1).sum();
    let unprovoked = opened - rotations.iter().map(|it| it.reconnects).sum::<u64>();
    scene.installation.end(scene.edges).await?;
    Ok(Report { agents: plan.agents, rotations, changes, visits, unprovoked })
}

impl Scene {
    async fn rotate_all(&mut self, duration: Duration) -> anyhow::Result<Vec<Rotation>> {
        let began = Instant::now();
        let pause = duration / (ROTATIONS + 1);
        let mut rotations = Vec::new();
        for turn in 0..ROTATIONS {
            tokio::time::sleep_until(began + pause * (turn + 1)).await;
            let before = self.begin();
            let (what, replaced) = match turn {
                0 => ("the principal's server certificate", self.server().await?),
                1 => ("every agent's client certificate", self.clients(1).await?),
                2 => ("the CA, and everything that it signs", self.authority().await?),
                3 => ("the resource proxy's certificate", self.proxy().await?),
                _ => ("the key of tokens", self.token_key().await?),
            };
            self.installation.check_alive(&self.edges)?;
            let done = self.end(what, replaced, &before);
            tracing::info!(rotation = %done, "rotated");
            rotations.push(done);
        }
        tokio::time::sleep_until(began + duration).await;
        Ok(rotations)
    }

    fn begin(&self) -> Before {
        for edge in &self.edges {
            edge.witness.forget_longest();
        }
        let seen = self.edges.iter().map(|edge| edge.witness.look());
        let (opened, failed) = seen.map(|seen| (seen.opened, seen.failed)).unzip();
        Before { at: Instant::now(), opened, failed }
    }

    fn end(&self, what: &'static str, replaced: usize, before: &Before) -> Rotation {
        let took = before.at.elapsed();
        let seen: Vec<_> = self.edges.iter().map(|edge| edge.witness.look()).collect();
        let more = |now: u64, index: usize, before: &[u64]| now - before[index];
        let reconnects: Vec<u64> =
            seen.iter().enumerate().map(|(index, now)| more(now.opened, index, &before.opened)).collect();
        let failed =
            seen.iter().enumerate().map(|(index, now)| more(now.failed, index, &before.failed)).sum();
        Rotation {
            what,
            replaced,
            reconnects: reconnects.iter().sum(),
            most_reconnects: reconnects.iter().copied().max().unwrap_or_default(),
            failed,
            longest_cut: seen.iter().map(|now| now.longest).max().unwrap_or_default(),
            took,
        }
    }

    /// Another certificate of the same CA for the port of agents. Nobody has to connect again.
    async fn server(&mut self) -> anyhow::Result<usize> {
        let (client, figures) = (self.installation.control.client(), &self.installation.figures);
        let before = reloads(figures, "server");
        let next = server_certificate(&self.ca)?;
        put_pair(&client, PRINCIPAL_TLS, &next).await?;
        until("the principal's new certificate", async || reloads(figures, "server") > before).await?;
        self.is_shown(self.installation.address, &next).await?;
        Ok(1)
    }

    /// Other certificates for all agents, at once. Those at hand are about to end, so that each agent connects again.
    async fn clients(&mut self, turn: u32) -> anyhow::Result<usize> {
        for (edge, identity) in self.edges.iter().zip(&self.identities) {
            let next = old_certificate(&self.ca, edge.name(), turn)?;
            put_pair(&edge.cluster.client(), AGENT_TLS, &next).await?;
            identity.replace(next);
        }
        for (edge, identity) in self.edges.iter().zip(&self.identities) {
            let end = identity.now().leaf()?.context("there is no certificate")?.not_after;
            until(&format!("{} with its new certificate", edge.name()), async || {
                let agents = self.installation.principal.agents();
                let status = agents.iter().find(|agent| agent.name.as_str() == edge.name());
                let logged_in = status.is_some_and(|status| {
                    status.connected_since.is_some() && status.certificate_expiry == Some(end)
                });
                logged_in && edge.witness.is_open()
            })
            .await?;
        }
        Ok(self.edges.len())
    }

    /// Another CA: believed beside the old one, then signing, then alone.
    async fn authority(&mut self) -> anyhow::Result<usize> {
        let next = Ca::generate("second", clock::now(), 10 * DAY)?;
        let client = self.installation.control.client();
        let old = self.identities.first().context("there is no agent")?.now();
        let both = format!("{}{}", self.ca.certificate_pem(), next.certificate_pem());
        self.believe(&both).await?;
        let figures = &self.installation.figures;
        let before = (reloads(figures, "server"), reloads(figures, "resource-proxy"));
        put_pair(&client, PRINCIPAL_TLS, &server_certificate(&next)?).await?;
        put_pair(&client, PROXY_TLS, &server_certificate(&next)?).await?;
        until("certificates by the new CA", async || {
            reloads(figures, "server") > before.0 && reloads(figures, "resource-proxy") > before.1
        })
        .await?;
        self.ca = next;
        let signs =
            [("tls.crt", self.ca.certificate_pem().as_bytes()), ("tls.key", self.ca.key_pem().expose())];
        put(&client, AUTHORITIES, &signs).await?;
        let replaced = self.clients(2).await?;
        self.believe(self.ca.certificate_pem()).await?;
        // What the old CA has signed is nothing any more.
        for address in [self.installation.address, self.installation.proxy] {
            let trusting = Material { ca: self.ca.certificate_pem().as_bytes().to_vec(), ..old.clone() };
            ensure!(dial(address, &trusting).await.is_err(), "a certificate of the old CA is still believed");
        }
        Ok(replaced + 3)
    }

    /// Everybody believes these CAs from now on.
    async fn believe(&self, authorities: &str) -> anyhow::Result<()> {
        let figures = &self.installation.figures;
        let pem = authorities.as_bytes();
        let before = (reloads(figures, "server"), reloads(figures, "resource-proxy"));
        let agents: Vec<f64> = self.edges.iter().map(|edge| reloads(&edge.figures, "client")).collect();
        put(&self.installation.control.client(), AUTHORITIES, &[("ca.crt", pem)]).await?;
        for (edge, identity) in self.edges.iter().zip(&self.identities) {
            put(&edge.cluster.client(), AUTHORITIES, &[("ca.crt", pem)]).await?;
            identity.believe(pem);
        }
        until("the principal's new CAs", async || {
            reloads(figures, "server") > before.0 && reloads(figures, "resource-proxy") > before.1
        })
        .await?;
        for (edge, before) in self.edges.iter().zip(agents) {
            until(&format!("the new CAs of {}", edge.name()), async || {
                reloads(&edge.figures, "client") > before
            })
            .await?;
        }
        Ok(())
    }

    /// Another certificate for the resource proxy. Whoever asks next sees it.
    async fn proxy(&mut self) -> anyhow::Result<usize> {
        let (client, figures) = (self.installation.control.client(), &self.installation.figures);
        let before = reloads(figures, "resource-proxy");
        let next = server_certificate(&self.ca)?;
        put_pair(&client, PROXY_TLS, &next).await?;
        until("the proxy's new certificate", async || reloads(figures, "resource-proxy") > before).await?;
        self.is_shown(self.installation.proxy, &next).await?;
        Ok(1)
    }

    /// Another key signs tokens; those that the old one has signed stay good, also when it is taken away.
    async fn token_key(&mut self) -> anyhow::Result<usize> {
        let (client, figures) = (self.installation.control.client(), &self.installation.figures);
        let agent = self.identities.first().context("there is no agent")?;
        let address = self.installation.address;
        let old = login(address, &agent.now()).await?;
        let known = read(&client, TOKEN_KEY, "jwt.key").await?;
        let next = tokio::task::spawn_blocking(|| Issuer::generate_key(2048)).await??;
        for text in [[next.expose(), b"\n".as_slice(), &known].concat(), next.expose().to_vec()] {
            let before = reloads(figures, "token-key");
            put(&client, TOKEN_KEY, &[("jwt.key", &text)]).await?;
            until("the new key of tokens", async || reloads(figures, "token-key") > before).await?;
            use_token(address, &agent.now(), &old).await.context("a token of the old key")?;
            let new = login(address, &agent.now()).await?;
            ensure!(new.key != old.key, "tokens are still signed with the old key");
            use_token(address, &agent.now(), &new).await.context("a token of the new key")?;
        }
        Ok(1)
    }

    async fn is_shown(&self, address: SocketAddr, expected: &Material) -> anyhow::Result<()> {
        let agent = self.identities.first().context("there is no agent")?;
        let expected = expected.leaf()?.context("there is no certificate")?.fingerprint;
        let found = shown(address, &agent.now()).await?;
        ensure!(found == expected, "{address} shows another certificate than it was given");
        Ok(())
    }
}

/// How things stood before a rotation.
struct Before {
    at: Instant,
    opened: Vec<u64>,
    failed: Vec<u64>,
}
