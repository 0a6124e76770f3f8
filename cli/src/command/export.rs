//! `export`: everything that an embedded control plane has, for a copy or for a move to a real cluster.

mod objects;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Command};
use kube::api::{DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::{ApiCapabilities, ApiResource, Discovery, Scope, verbs};
use kube::{Api, Client};
use tiphys_shared::kube::client::{self, Access};

use self::objects::Stage;
use crate::failure::Failure;
use crate::{embedded, output, runtime};

const EXAMPLES: &str = "\
Examples:
  tiphys export --embedded ./control-plane --apply --kubeconfig ~/.kube/config
                                                       move it to a real cluster
  tiphys export --embedded ./control-plane > copy.yaml
                                                       a copy to keep; there are secrets in it

It works while the principal runs, and while it is stopped. Definitions come first, then namespaces, then the rest.
What a server sets is left out, owners among it, since they are named by a UID that is another one elsewhere.";

/// In whose name objects are applied.
const MANAGER: &str = "tiphys-export";
/// How many objects are read at a time.
const PAGE: u32 = 500;
/// How long definitions may take to be served.
const PATIENCE: Duration = Duration::from_secs(30);

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
    if !options.apply && (options.kubeconfig.is_some() || options.kubecontext.is_some()) {
        return Err(Failure::usage("--kubeconfig and --kubecontext name a cluster to apply to")
            .remedy("add --apply, or leave them out to print"));
    }
    if !options.apply && std::io::stdout().is_terminal() {
        return Err(Failure::usage("there are secrets in it, which do not belong on a terminal")
            .remedy("send it to a file or to another command, or add --apply"));
    }
    runtime::run(1, async |_| {
        // It is there first: what cannot be reached is not to be found out halfway.
        let target = match options.apply {
            true => Some(target(&options).await?),
            false => None,
        };
        let (_server, source) = source(&options).await?;
        let found = read(&source).await?;
        let count = found.iter().map(|(_, _, objects)| objects.len()).sum::<usize>();
        match target {
            Some(target) => {
                apply(&target, &found).await?;
                output::say(&format!("{count} objects applied"));
                Ok(())
            }
            None => {
                let all = found.iter().flat_map(|(_, _, objects)| objects);
                for object in all {
                    let text = serde_saphyr::to_string(object)
                        .map_err(|error| Failure::because("cannot write an object", &error))?;
                    output::text(&format!("---\n{text}"))?;
                }
                Ok(())
            }
        }
    })
}

async fn target(options: &Options) -> Result<Client, Failure> {
    let access = Access { kubeconfig: options.kubeconfig.clone(), context: options.kubecontext.clone() };
    let client = client::connect(&access)
        .await
        .map_err(|error| Failure::because("cannot reach the cluster that gets it", &error))?;
    let version = client.apiserver_version().await;
    version.map(|_| client).map_err(|error| Failure::because("cannot reach the cluster that gets it", &error))
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

type Found = (Stage, (ApiResource, ApiCapabilities), Vec<DynamicObject>);

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
            all.push((stage, (resource, capabilities), objects));
        }
    }
    // The same order every time, so that two copies can be compared.
    all.sort_by_key(|(stage, (resource, _), _)| (*stage, resource.group.clone(), resource.plural.clone()));
    Ok(all)
}

async fn apply(target: &Client, found: &[Found]) -> Result<(), Failure> {
    let parameters = PatchParams::apply(MANAGER).force();
    for (stage, (resource, capabilities), objects) in found {
        for object in objects {
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let namespace = object.metadata.namespace.as_deref();
            let api: Api<DynamicObject> = match (namespace, &capabilities.scope) {
                (Some(namespace), Scope::Namespaced) => {
                    Api::namespaced_with(target.clone(), namespace, resource)
                }
                _ => Api::all_with(target.clone(), resource),
            };
            api.patch(name, &parameters, &Patch::Apply(object)).await.map_err(|error| {
                let place = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
                Failure::because(&format!("cannot apply {} {place}{name}", resource.plural), &error).remedy(
                    "mend what the cluster says, and run it again: what is there already is no obstacle",
                )
            })?;
            if *stage == Stage::Definition {
                served(&api, name).await?;
            }
        }
    }
    Ok(())
}

/// Waits until a definition is served.
async fn served(definitions: &Api<DynamicObject>, name: &str) -> Result<(), Failure> {
    let established =
        kube::runtime::wait::await_condition(definitions.clone(), name, |object: Option<&DynamicObject>| {
            object.is_some_and(objects::is_established)
        });
    match tokio::time::timeout(PATIENCE, established).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::because(&format!("cannot watch definition {name}"), &error)),
        Err(_) => Err(Failure::new(format!("the cluster does not serve {name}"))
            .remedy(format!("see why with kubectl describe crd {name}, and run it again"))),
    }
}
