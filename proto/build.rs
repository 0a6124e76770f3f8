//! Compiles the .proto files with a pure-Rust compiler: no `protoc` is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 9] = [
        "authapi.proto",
        "versionapi.proto",
        "eventstreamapi.proto",
        "logstreamapi.proto",
        "terminalstreamapi.proto",
        "cloudevents.proto",
        "pprof/profile.proto",
        "tiphys/join.proto",
        "tiphys/tunnel.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    // One field per attribute, in the order of their names: equal events have equal bytes. CloudEvents are
    // compiled by themselves: what is named by an extern path is not generated.
    let mut cloudevents = descriptors.clone();
    cloudevents.file.retain(|file| ["google.protobuf", "io.cloudevents.v1"].contains(&file.package()));
    tonic_prost_build::configure().btree_map(".").compile_fds(cloudevents)?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".tiphys.tunnel")
        .bytes(".principal.apis.logstreamapi")
        .bytes(".terminalstreamapi")
        .extern_path(".io.cloudevents.v1", "crate::cloudevents")
        .compile_fds(descriptors)?;
    Ok(())
}
