//! What is asked for by an event and answered over a stream of its own, in the Go project's form.

use serde::{Deserialize, Serialize};

/// Asks for the log of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogRequest {
    /// Names the request, and the stream that answers it.
    pub uuid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod_name: String,
    /// The container; empty for a pod that has one only.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Goes on for as long as the container writes.
    #[serde(skip_serializing_if = "is_off")]
    pub follow: bool,
    /// No more lines than that, counted from the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_lines: Option<i64>,
    /// Nothing older than that, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_seconds: Option<i64>,
    /// Nothing before it: RFC 3339; empty for no bound.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub since_time: String,
    /// The time before each line. An agent of the Go project sends it in any case.
    #[serde(skip_serializing_if = "is_off")]
    pub timestamps: bool,
    /// Of the container before the one that runs.
    #[serde(skip_serializing_if = "is_off")]
    pub previous: bool,
    /// The API server need not look at the kubelet's certificate.
    #[serde(rename = "insecureSkipTLSVerifyBackend", skip_serializing_if = "is_off")]
    pub insecure_skip_tls_verify_backend: bool,
    /// No more bytes than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<i64>,
}

/// Asks to run a command in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TerminalRequest {
    /// Names the request, and the stream that answers it.
    pub uuid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod_name: String,
    /// The container; empty for a pod that has one only.
    pub container_name: String,
    /// The command and its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// It has a terminal.
    pub tty: bool,
    /// It is told something.
    pub stdin: bool,
    /// What it says is heard.
    pub stdout: bool,
    /// What it complains about is heard.
    pub stderr: bool,
}

fn is_off(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_asked_for_is_left_out_and_names_are_those_of_the_go_project() {
        let request = LogRequest { uuid: "u".into(), pod_name: "p".into(), ..LogRequest::default() };
        assert_eq!(
            serde_json::to_value(&request).unwrap(),
            json!({"uuid": "u", "namespace": "", "podName": "p"})
        );
        let all = json!({
            "uuid": "u", "namespace": "n", "podName": "p", "container": "c", "follow": true, "tailLines": 1,
            "sinceSeconds": 2, "sinceTime": "2026-01-01T00:00:00Z", "timestamps": true, "previous": true,
            "insecureSkipTLSVerifyBackend": true, "limitBytes": 3,
        });
        let request: LogRequest = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(serde_json::to_value(&request).unwrap(), all);

        let all = json!({
            "uuid": "u", "namespace": "n", "podName": "p", "containerName": "c", "command": ["sh", "-c"],
            "tty": true, "stdin": true, "stdout": true, "stderr": false,
        });
        let request: TerminalRequest = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(serde_json::to_value(&request).unwrap(), all);
    }
}
