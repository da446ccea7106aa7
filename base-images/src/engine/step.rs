//! What the containers look like in which the classic builder runs its steps.

use serde_json::Value;

/// Whether a container, as the engine tells of it in full, looks like a step of somebody's build. The classic builder names
/// the image by its id, and gives the step no log and no terminal. Whoever starts a container by hand does not do all three.
#[must_use]
pub fn is_build_step(found: &Value) -> bool {
    let is = |path: &str| found.pointer(path).and_then(Value::as_bool) == Some(true);
    let text = |path: &str| found.pointer(path).and_then(Value::as_str);
    text("/Config/Image").is_some_and(|image| image.starts_with("sha256:"))
        && !is("/Config/Tty")
        && !is("/Config/OpenStdin")
        && text("/HostConfig/LogConfig/Type") == Some("none")
}

/// Whether it is a step with all that a worker gives to its builds. A person who limits his own gives them hardly all of it.
#[must_use]
pub fn is_workers_build_step(found: &Value) -> bool {
    let limits = |name: &str| found.pointer("/HostConfig").and_then(|config| config.get(name));
    let is_limit = |limit: &Value| limit.get("Name").and_then(Value::as_str) == Some("fsize");
    is_build_step(found)
        && limits("CpusetCpus").and_then(Value::as_str).is_some_and(|cpus| !cpus.is_empty())
        && limits("Memory").and_then(Value::as_i64).is_some_and(|bytes| bytes > 0)
        && limits("Ulimits").and_then(Value::as_array).is_some_and(|all| all.iter().any(is_limit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_step_is_known_by_all_that_makes_one() {
        let step = json!({
            "Config": {"Image": "sha256:0123", "Tty": false, "OpenStdin": false},
            "HostConfig": {
                "LogConfig": {"Type": "none"}, "CpusetCpus": "0-1", "Memory": 1 << 29,
                "Ulimits": [{"Name": "core"}, {"Name": "fsize"}],
            },
        });
        let check = |path: &str, value: Value, expected: (bool, bool)| {
            let mut found = step.clone();
            *found.pointer_mut(path).expect("a value") = value;
            assert_eq!((is_build_step(&found), is_workers_build_step(&found)), expected, "{path}");
        };
        check("/Config/Tty", json!(false), (true, true));
        check("/Config/Image", json!("openswe--x"), (false, false));
        check("/Config/Tty", json!(true), (false, false));
        check("/Config/OpenStdin", json!(true), (false, false));
        check("/HostConfig/LogConfig/Type", json!("json-file"), (false, false));
        check("/HostConfig/CpusetCpus", json!(""), (true, false));
        check("/HostConfig/Memory", json!(0), (true, false));
        check("/HostConfig/Ulimits", json!([{"Name": "core"}]), (true, false));
        check("/HostConfig", json!({}), (false, false));
    }
}
