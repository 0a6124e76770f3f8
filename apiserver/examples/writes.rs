//! Measures how many writes a server takes, in memory and on a file:
//!
//! ```text
//! cargo run --release -p tiphys-apiserver --example writes -- /var/tmp 1 32
//! ```
//!
//! The first argument is a folder on the disk to be measured; further ones are numbers of clients. Each client changes
//! an object of its own of 1 KB, again and again, in process; a line tells writes per second, the median and the
//! slowest of a hundred. The last line is the memory that the process has taken.

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::json;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};
use tiphys_apiserver::{ApiServer, Options};

const TIME: Duration = Duration::from_secs(5);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: writes FOLDER CLIENTS…")?;
    let counts = arguments.map(|count| count.parse()).collect::<Result<Vec<usize>, _>>()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        for clients in counts {
            run("in memory", &ApiServer::new(Options::default()), clients).await?;
            let folder = tempfile::tempdir_in(Path::new(&folder))?;
            let server = ApiServer::open(Options::default(), folder.path().join("state")).await?;
            run("on a file", &server, clients).await?;
        }
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM: unknown");
        println!("{peak}");
        Ok(())
    })
}

async fn run(kind: &str, server: &ApiServer, clients: usize) -> Result<(), Failure> {
    let resource = kube::api::ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
    let until = Instant::now() + TIME;
    let writers: Vec<_> = (0..clients)
        .map(|client| {
            let maps: Api<DynamicObject> = Api::default_namespaced_with(server.client(), &resource);
            let map = DynamicObject::new(&format!("map-{client}"), &resource);
            tokio::spawn(async move {
                let mut times = Vec::new();
                let name = map.metadata.name.clone().unwrap_or_default();
                maps.create(&PostParams::default(), &map).await?;
                while Instant::now() < until {
                    let number = times.len();
                    let begin = Instant::now();
                    let patch = json!({"data": {"number": number.to_string(), "text": "x".repeat(1000)}});
                    maps.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await?;
                    times.push(begin.elapsed());
                }
                Ok::<_, kube::Error>(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for writer in writers {
        times.extend(writer.await??);
    }
    times.sort();
    let at = |share: f64| times.get((times.len() as f64 * share) as usize).copied().unwrap_or_default();
    println!(
        "{kind}: {clients} clients, {:.0} writes/s, median {:.2?}, p99 {:.2?}",
        times.len() as f64 / TIME.as_secs_f64(),
        at(0.5),
        at(0.99)
    );
    Ok(())
}
