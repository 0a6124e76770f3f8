//! Making the local configuration by asking.

use std::io::{self, BufRead};
use std::path::PathBuf;

use clap::Args;
use kube::config::Kubeconfig;

use super::default_kubeconfig;
use crate::failure::Failure;
use crate::operator::confirm::Consent;
use crate::operator::local::{Component, LocalConfig};
use crate::output;

#[derive(Debug, Args)]
pub(super) struct Create {
    /// The kubeconfig; by default ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig_path: Option<PathBuf>,
    /// The file to write; by default that of --config
    #[arg(long, value_name = "FILE")]
    output_path: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

impl Create {
    pub(super) async fn run(self, default: PathBuf) -> Result<(), Failure> {
        let path = self.kubeconfig_path.map_or_else(default_kubeconfig, Ok)?;
        let kubeconfig = Kubeconfig::read_from(&path).map_err(|error| {
            Failure::because(&format!("cannot read {}", path.display()), &error)
                .remedy("name another kubeconfig with --kubeconfig-path")
        })?;
        let contexts: Vec<String> = kubeconfig.contexts.into_iter().map(|context| context.name).collect();
        let output = self.output_path.unwrap_or(default);
        // What others keep there is lost, and so is a file that is something else.
        if std::fs::metadata(&output).is_ok_and(|found| found.len() > 0) {
            let what = format!("this replaces {} and all entries in it", output.display());
            self.consent.obtain(&what).await?;
        }
        let asked = tokio::task::spawn_blocking(move || ask(&contexts, &mut io::stdin().lock())).await;
        let config = asked.map_err(|error| Failure::because("cannot ask", &error))??;
        config.write(&output)?;
        output::say(&format!("{} is written", output.display()));
        Ok(())
    }
}

/// Asks for each context what it is.
fn ask(contexts: &[String], answers: &mut dyn BufRead) -> Result<LocalConfig, Failure> {
    let mut config = LocalConfig::default();
    for context in contexts {
        let question = format!("Context {context}: is a principal or an agent there? (empty for neither)");
        let kind = answer(&question, answers, |text| matches!(text, "" | "principal" | "agent"))?;
        let entries = match kind.as_str() {
            "principal" => &mut config.contexts.principals,
            "agent" => &mut config.contexts.agents,
            _ => continue,
        };
        let is_word = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
        let namespace = answer("In which namespace?", answers, is_word)?;
        let name = answer("Under which name?", answers, |text| is_word(text) && !entries.contains_key(text))?;
        entries.insert(name, Component { kube_context: context.clone(), namespace });
    }
    let principals = &config.contexts.principals;
    if !principals.is_empty() {
        let names: Vec<&str> = principals.keys().map(String::as_str).collect();
        let question = format!("Which principal is the default: {}?", names.join(", "));
        config.default_principal = answer(&question, answers, |text| principals.contains_key(text))?;
    }
    Ok(config)
}

/// Asks until the answer is one.
fn answer(
    question: &str,
    answers: &mut dyn BufRead,
    is_one: impl Fn(&str) -> bool,
) -> Result<String, Failure> {
    loop {
        output::say(question);
        let mut line = String::new();
        let read = answers.read_line(&mut line);
        if read.map_err(|error| Failure::because("cannot read the answer", &error))? == 0 {
            return Err(Failure::new("the answers ended before the questions; nothing was written")
                .remedy("answer at a terminal, or add entries one by one with `config add`"));
        }
        if is_one(line.trim()) {
            return Ok(line.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_become_entries_and_a_wrong_one_is_asked_again() {
        let contexts = ["hub", "edge", "other"].map(str::to_owned);
        let answers = "what\nprincipal\nargocd\nmain\nagent\nargo cd\nargocd\nedge-1\n\nnobody\nmain\n";
        let config = ask(&contexts, &mut answers.as_bytes()).unwrap();
        assert_eq!(config.default_principal().unwrap().kube_context, "hub");
        assert_eq!(config.agent("edge-1").unwrap().namespace, "argocd");
        assert!(ask(&contexts, &mut "principal\n".as_bytes()).is_err());
    }
}
