/// How Docker lists an image of its own registry, or of none.
const DOCKER_HUB: [&str; 4] =
    ["docker.io/library/", "docker.io/", "index.docker.io/library/", "index.docker.io/"];

/// What Podman puts before a name of no registry. For Docker that is a registry like any other.
const PODMAN_NONE: &str = "localhost/";

/// An image's name as Docker lists it: its own registry is never said, nor Podman's none.
#[must_use]
pub fn short_name(name: &str, is_podman: bool) -> &str {
    let podman = name.strip_prefix(PODMAN_NONE).filter(|_| is_podman);
    podman.or_else(|| DOCKER_HUB.iter().find_map(|prefix| name.strip_prefix(prefix))).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_part_of_a_name_unless_it_is_the_engines_own() {
        let check = |name: &str, docker: &str, podman: &str| {
            assert_eq!((short_name(name, false), short_name(name, true)), (docker, podman), "{name}");
        };
        check("x:latest", "x:latest", "x:latest");
        check("docker.io/library/x", "x", "x");
        check("index.docker.io/me/x", "me/x", "me/x");
        check("localhost/x", "localhost/x", "x");
        check("localhost:5000/x", "localhost:5000/x", "localhost:5000/x");
        check("elsewhere/docker.io/x", "elsewhere/docker.io/x", "elsewhere/docker.io/x");
    }
}
