//! `export`: everything that an embedded control plane has, for a copy or for a move to a real cluster.

mod objects;
mod outcome;
mod target;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{ArgAction, ArgMatches, Args, Command};
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, verbs};
use kube::{Api, Client};
use tiphys_shared::kube::client::{self, Access};

use self::objects::Stage;
use self::target::Target;
use crate::failure::Failure;
use crate::operator::confirm::Consent;
use crate::operator::write::DryRun;
use crate::{embedded, operator, output};

const EXAMPLES: &str = "\
Examples:
  tiphys export --embedded ./control-plane --apply --kubeconfig ~/.kube/config
                                                       move it to a real cluster
  tiphys export --embedded ./control-plane --apply --kubecontext production --dry-run
                                                       what that would create and change there
  tiphys export --embedded ./control-plane > copy.yaml
                                                       a copy to keep; there are secrets in it

It works while the principal runs, and while it is stopped. Definitions come first, then namespaces, then the rest.
What a server sets is left out, owners among it, since they are named by a UID that is another one elsewhere.

The cluster that gets it is looked at first, without effect. It is asked about what is there and would change; private keys
that are there and differ stay, and with them everything else, without --replace-keys.";

/// How many objects are read at a time.
const PAGE: u32 = 500;

#[derive(Debug, Clone, Args)]
struct Options {
    /// Folder of the embedded control plane
    #[arg(long, value_name = "DIR")]
    embedded: PathBuf,
    /// Apply it to the cluster of --kubeconfig instead of printing it
    #[arg(long)]
    apply: bool,
    /// Kubeconfig of the cluster that gets it; by default $KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the cluster that gets it, instead of the current one
    #[arg(long, value_name = "NAME")]
    kubecontext: Option<String>,
    /// Replace private keys that are there, a CA's and the one that signs tokens among them: who relies on them is cut off
    #[arg(long, action = ArgAction::Set, default_value = "false")]
    replace_keys: bool,
    #[command(flatten)]
    consent: Consent,
    #[command(flatten)]
    dry_run: DryRun,
}

/// What the user wants done to a cluster.
#[derive(Debug, Clone, Copy)]
struct Decision {
    consent: Consent,
    replace_keys: bool,
    dry_run: bool,
}

pub(super) fn command() -> Command {
    Options::augment_args(
        Command::new("export")
            .about("Print what an embedded control plane has, or move it to a cluster")
            .after_help(EXAMPLES),
    )
}

pub(super) fn run(command: &Command, given: &ArgMatches) -> Result<(), Failure> {
    let options: Options = super::load(command, given)?;
    let decision = Decision {
        consent: options.consent,
        replace_keys: options.replace_keys,
        dry_run: options.dry_run.dry_run,
    };
    if !options.apply && (options.kubeconfig.is_some() || options.kubecontext.is_some()) {
        return Err(Failure::usage("--kubeconfig and --kubecontext name a cluster to apply to")
            .remedy("add --apply, or leave them out to print"));
    }
    if !options.apply && (decision.consent.yes || decision.replace_keys || decision.dry_run) {
        return Err(Failure::usage("--yes, --replace-keys and --dry-run are about a cluster to apply to")
            .remedy("add --apply, or leave them out to print"));
    }
    if !options.apply && std::io::stdout().is_terminal() {
        return Err(Failure::usage("there are secrets in it, which do not belong on a terminal")
            .remedy("send it to a file or to another command, or add --apply"));
    }
    operator::run(async {
        // It is there first: what cannot be reached is not to be found out halfway.
        let target = match options.apply {
            true => Some(target(&options).await?),
            false => None,
        };
        let (_server, source) = source(&options).await?;
        let found = read(&source).await?;
        if let Some(target) = target {
            return target::apply(&target, &found, decision).await;
        }
        for object in found.iter().flat_map(|kind| &kind.objects) {
            let text = serde_saphyr::to_string(object)
                .map_err(|error| Failure::because("cannot write an object", &error))?;
            output::text(&format!("---\n{text}"))?;
        }
        Ok(())
    })
}

async fn target(options: &Options) -> Result<Target, Failure> {
    let access = Access { kubeconfig: options.kubeconfig.clone(), context: options.kubecontext.clone() };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::because("cannot reach the cluster that gets it", error)
    };
    let config = client::configuration(&access).await.map_err(|error| failed(&error))?;
    let server = config.cluster_url.to_string();
    let client = client::client(client::hurried(config)).map_err(|error| failed(&error))?;
    client.apiserver_version().await.map_err(|error| failed(&error))?;
    Ok(Target { client, server })
}

/// The control plane: from its file, or if that is in use, from whoever has it.
async fn source(options: &Options) -> Result<(Option<tiphys_apiserver::ApiServer>, Client), Failure> {
    let folder = &options.embedded;
    if !embedded::exists(folder) {
        return Err(Failure::new(format!("there is no control plane in {}", folder.display()))
            .remedy("name the folder that tiphys principal --embedded was given"));
    }
    match embedded::open(folder, None).await {
        Ok(server) => {
            let client = server.client();
            Ok((Some(server), client))
        }
        Err(embedded::Unopened::InUse(_)) => {
            let access = Access { kubeconfig: Some(embedded::kubeconfig(folder)), context: None };
            let client = client::connect(&access)
                .await
                .map_err(|error| Failure::because("cannot reach the running control plane", &error))?;
            Ok((None, client))
        }
        Err(embedded::Unopened::Failed(failure)) => Err(failure),
    }
}

/// The objects of a kind.
struct Found {
    stage: Stage,
    resource: ApiResource,
    capabilities: ApiCapabilities,
    objects: Vec<DynamicObject>,
}

/// Everything that can be taken elsewhere, in the order in which it has to arrive.
async fn read(client: &Client) -> Result<Vec<Found>, Failure> {
    let failed = |error: &kube::Error| Failure::because("cannot read the control plane", error);
    let discovery = Discovery::new(client.clone()).run_aggregated().await.map_err(|error| failed(&error))?;
    let mut all = Vec::new();
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        let is_state =
            capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::CREATE);
        let Some(stage) = objects::stage(&resource).filter(|_| is_state) else { continue };
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let mut objects = Vec::new();
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let list = api.list(&page).await.map_err(|error| failed(&error))?;
            let has_status = capabilities.subresources.iter().any(|(part, _)| part.plural == "status");
            let taken =
                list.items.into_iter().filter_map(|object| objects::carried(object, &resource, has_status));
            objects.extend(taken);
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => break,
            }
        }
        if !objects.is_empty() {
            all.push(Found { stage, resource, capabilities, objects });
        }
    }
    // The same order every time, so that two copies can be compared.
    all.sort_by_key(|kind| (kind.stage, kind.resource.group.clone(), kind.resource.plural.clone()));
    Ok(all)
}
