//! The file in which a person keeps where principals and agents are: upstream's `ctl.conf`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tiphys_shared::model::AgentName;

use crate::failure::Failure;
use crate::{file, output};

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct LocalConfig {
    pub(crate) contexts: Contexts,
    pub(crate) default_principal: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Contexts {
    pub(crate) principals: BTreeMap<String, Component>,
    pub(crate) agents: BTreeMap<String, Component>,
}

/// Where a principal or an agent is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Component {
    pub(crate) kube_context: String,
    pub(crate) namespace: String,
}

/// Where the file is if nobody says otherwise.
pub(crate) fn default_path() -> Result<PathBuf, Failure> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| home.join(".config").join("argocd-agent").join("ctl.conf")).ok_or_else(|| {
        Failure::new("there is no home folder to keep the local configuration in")
            .remedy("name a file with --config")
    })
}

impl LocalConfig {
    /// Reads a file; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure::because(&format!("cannot read {}", path.display()), &error)),
        }
    }

    /// Reads a file that somebody named: it has to be there.
    pub(crate) fn read_existing(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::because(&format!("cannot read {}", path.display()), &error)
                .remedy("check --config, or make the file with `config create`")
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Failure> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let wrong = |what: String| {
            Failure::new(format!("{}: {what}", path.display()))
                .remedy("mend the file with an editor, or name another one with --config")
        };
        let config: Self =
            serde_saphyr::from_str(text).map_err(|error| wrong(format!("not a configuration: {error}")))?;
        config.check().map_err(wrong)?;
        Ok(config)
    }

    /// What no command could use.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (kind, entries) in [("principal", &self.contexts.principals), ("agent", &self.contexts.agents)] {
            for (name, entry) in entries {
                if name.trim().is_empty() {
                    return Err(format!("an entry of {kind}s has no name"));
                }
                for (field, value) in [("kube-context", &entry.kube_context), ("namespace", &entry.namespace)]
                {
                    if value.trim().is_empty() {
                        return Err(format!("{kind} {name} has no {field}"));
                    }
                }
            }
        }
        let default = &self.default_principal;
        if !default.is_empty() && !self.contexts.principals.contains_key(default) {
            return Err(format!("default-principal names {default}, which is not among the principals"));
        }
        Ok(())
    }

    /// What a file may hold that others wrote, but no command writes: names that break a table or no namespace can have.
    fn check_names(&self) -> Result<(), String> {
        for (kind, entries) in [("principal", &self.contexts.principals), ("agent", &self.contexts.agents)] {
            for (name, entry) in entries {
                for (what, text) in [("name", name), ("context", &entry.kube_context)] {
                    if *text != output::visible(text) {
                        return Err(format!(
                            "{text:?} cannot be the {what} of a {kind}: it has control characters"
                        ));
                    }
                }
                if AgentName::new(&entry.namespace).is_err() {
                    return Err(format!(
                        "{:?} is not the name of a namespace ({kind} {name})",
                        entry.namespace
                    ));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn principal(&self, name: &str) -> Result<Component, Failure> {
        find("principal", &self.contexts.principals, name)
    }

    pub(crate) fn agent(&self, name: &str) -> Result<Component, Failure> {
        find("agent", &self.contexts.agents, name)
    }

    pub(crate) fn default_principal(&self) -> Option<Component> {
        self.contexts.principals.get(&self.default_principal).cloned()
    }

    /// Whether it may be written.
    ///
    /// # Errors
    /// A [`Failure`] about the command line if it has what no command could use.
    pub(crate) fn check_to_write(&self) -> Result<(), Failure> {
        self.check().and_then(|()| self.check_names()).map_err(|what| {
            Failure::usage(format!("this would not be a configuration: {what}"))
                .remedy("give what is missing, and namespaces of a-z, 0-9 and -")
        })
    }

    /// Puts the file in its place in one step. A link stays one.
    ///
    /// # Errors
    /// A [`Failure`] if it may not be written, or cannot.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        self.check_to_write()?;
        let failed =
            |error: std::io::Error| Failure::because(&format!("cannot write {}", path.display()), &error);
        let text = serde_saphyr::to_string(self)
            .map_err(|error| Failure::because("cannot write the configuration", &error))?;
        file::replace(path, &text).map_err(failed)
    }
}

fn find(kind: &str, entries: &BTreeMap<String, Component>, name: &str) -> Result<Component, Failure> {
    entries.get(name).cloned().ok_or_else(|| {
        let known: Vec<&str> = entries.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Failure::usage(format!("the local configuration has no {kind} {name:?}; it has {known}"))
            .remedy(format!("add it with `config add {kind}`, or name one that is there"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAM: &str = "\
contexts:
  principals:
    hub:
      kube-context: kind-hub
      namespace: argocd
  agents:
    edge-1:
      kube-context: kind-edge
      namespace: argocd
default-principal: hub
";

    #[test]
    fn upstreams_file_is_read_and_written_back_so_that_upstream_reads_it() {
        let config = LocalConfig::parse(Path::new("ctl.conf"), UPSTREAM).unwrap();
        assert_eq!(config.default_principal().unwrap().kube_context, "kind-hub");
        assert_eq!(config.agent("edge-1").unwrap().namespace, "argocd");
        assert!(config.agent("edge-2").is_err());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("ctl.conf");
        config.write(&path).unwrap();
        let again: serde_json::Value =
            serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let expected: serde_json::Value = serde_saphyr::from_str(UPSTREAM).unwrap();
        assert_eq!(again, expected);
    }

    #[test]
    fn what_no_command_could_use_is_said_when_it_is_read_and_never_written() {
        let mut config = LocalConfig::default();
        config.contexts.agents.insert("a".into(), Component::default());
        assert_eq!(config.check().unwrap_err(), "agent a has no kube-context");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ctl.conf");
        assert!(config.write(&path).is_err() && !path.exists());
        let dangling = LocalConfig { default_principal: "x".into(), ..LocalConfig::default() };
        assert!(dangling.check().unwrap_err().contains("not among the principals"));
        assert!(LocalConfig::parse(Path::new("f"), "- a list").is_err());
        assert_eq!(LocalConfig::read(&path).unwrap(), LocalConfig::default());
        assert!(LocalConfig::read_existing(&path).is_err());
    }

    #[test]
    fn names_that_break_a_table_or_a_request_are_not_written_and_a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real.conf"), folder.path().join("ctl.conf"));
        std::fs::write(&path, UPSTREAM).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let good = LocalConfig::read_existing(&link).unwrap();
        let entry = |context: &str, namespace: &str| Component {
            kube_context: context.to_owned(),
            namespace: namespace.to_owned(),
        };
        for (name, entry) in
            [("a\nb", entry("c", "n")), ("a", entry("c\u{1b}[31m", "n")), ("a", entry("c", "../y"))]
        {
            let mut bad = good.clone();
            bad.contexts.agents.insert(name.to_owned(), entry);
            assert!(matches!(bad.write(&link).unwrap_err(), Failure::Work { code: 2, .. }));
        }
        assert_eq!(LocalConfig::read(&path).unwrap(), good);
        let mut more = good;
        more.contexts.agents.insert("edge-2".to_owned(), entry("kind edge/2@x", "argocd"));
        more.write(&link).unwrap();
        assert!(link.is_symlink());
        assert_eq!(LocalConfig::read(&path).unwrap(), more);
        let broken = LocalConfig::parse(Path::new("f"), "contexts: [").unwrap_err();
        assert!(matches!(&broken, Failure::Work { remedy: Some(remedy), .. } if remedy.contains("editor")));
    }
}
