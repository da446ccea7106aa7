use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Class, PathError, Spool};

/// How much the fleet may claim at once: the content of `control/limits.toml`. What is not set is not limited.
///
/// ```toml
/// claims_per_node = 8          # of one node, all its workers together
/// model_dollars = 500          # what models may cost all nodes together, as spend/ has it: agents wait beyond it
/// [claims_per_class]
/// 5-build = 100                # of one class, all nodes together; 0: nobody claims it
/// ```
///
/// Workers that look at the same moment may overshoot a limit by one claim each: nothing is locked for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Claims of one node.
    pub claims_per_node: Option<u32>,
    /// Claims of one class, of all nodes together.
    pub claims_per_class: BTreeMap<Class, u32>,
    /// What models may cost all nodes together, in millionths of a dollar.
    pub model_micro_dollars: Option<u64>,
}

/// What a node may claim just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    obstacle: Option<String>,
    full: BTreeSet<Class>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    claims_per_node: Option<u32>,
    claims_per_class: BTreeMap<String, u32>,
    model_dollars: Option<f64>,
}

impl Limits {
    /// Reads the content of `control/limits.toml`.
    ///
    /// # Errors
    /// The line or key that is wrong, and what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|e| e.to_string().trim().replace('\n', " "))?;
        let class = |(name, limit): (String, u32)| match name.parse::<Class>() {
            Ok(class) => Ok((class, limit)),
            Err(()) => {
                Err(format!("claims_per_class.{name:?} is no class, expected one such as \"5-build\""))
            }
        };
        let claims_per_class = written.claims_per_class.into_iter().map(class).collect::<Result<_, _>>()?;
        let micro = |dollars: f64| match (0.0..1e12).contains(&dollars) {
            true => Ok((dollars * 1e6).round() as u64),
            false => Err(format!("model_dollars is {dollars}, expected 0 or more")),
        };
        let model_micro_dollars = written.model_dollars.map(micro).transpose()?;
        Ok(Self { claims_per_node: written.claims_per_node, claims_per_class, model_micro_dollars })
    }

    /// True where nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claims_per_node.is_none()
            && self.claims_per_class.is_empty()
            && self.model_micro_dollars.is_none()
    }
}

impl Room {
    /// Whether a task of this class may be claimed.
    #[must_use]
    pub fn admits(&self, class: &Class) -> bool {
        self.obstacle.is_none() && !self.full.contains(class)
    }

    /// Why the node may claim nothing at all, in one sentence.
    #[must_use]
    pub fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }
}

impl Spool {
    /// What a node may still claim. Without limits no file is touched; otherwise lease directories are counted.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn room(&self, limits: &Limits, node: &str) -> Result<Room, PathError> {
        Ok(Room { obstacle: self.node_obstacle(limits, node)?, full: self.full_classes(limits)? })
    }

    /// Why a node holds as many claims as it may, in one sentence; `None` where it may hold more.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn node_obstacle(&self, limits: &Limits, node: &str) -> Result<Option<String>, PathError> {
        let Some(most) = limits.claims_per_node else { return Ok(None) };
        let mut claims = 0;
        for owner in self.owners_on(node)? {
            claims += self.claims_of(&owner)?.len();
        }
        Ok((claims >= most as usize).then(|| {
            format!("this node holds {claims} claims, and control/limits.toml allows {most} a node")
        }))
    }

    /// Classes of which as many tasks are claimed as may be, whoever asks.
    ///
    /// # Errors
    /// A directory cannot be listed.
    pub fn full_classes(&self, limits: &Limits) -> Result<BTreeSet<Class>, PathError> {
        let mut full = BTreeSet::new();
        if limits.claims_per_class.is_empty() {
            return Ok(full);
        }
        let owners = self.files().list(&self.layout().claimed())?;
        for (class, most) in &limits.claims_per_class {
            let mut claims = 0;
            for owner in &owners {
                let dir = self.layout().claimed().join(owner).join(class.to_string());
                claims += if *most == 0 { 0 } else { self.files().list(&dir)?.len() };
            }
            if claims >= *most as usize {
                full.insert(class.clone());
            }
        }
        Ok(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write_and_names_what_is_wrong() {
        let build = Class { priority: 5, kind: "build".to_owned() };
        let check = |text: &str, node: Option<u32>, class: Option<u32>| {
            let limits = Limits::parse(text).expect(text);
            assert_eq!((limits.claims_per_node, limits.claims_per_class.get(&build).copied()), (node, class));
            assert_eq!(limits.is_empty(), node.is_none() && class.is_none());
        };
        check("", None, None);
        check("claims_per_node = 8", Some(8), None);
        assert_eq!(Limits::parse("model_dollars = 2.5").expect("valid").model_micro_dollars, Some(2_500_000));
        check("[claims_per_class]\n5-build = 0\n", None, Some(0));
        let check = |text: &str, expected: &str| {
            let why = Limits::parse(text).expect_err(text);
            assert!(why.contains(expected) && !why.contains('\n'), "{why}");
        };
        check("claims_per_nodes = 8", "claims_per_nodes");
        check("claims_per_node = -1", "claims_per_node");
        check("model_dollars = -1.0", "model_dollars is -1");
        check("claims_per_node = \"many\"", "many");
        check("[claims_per_class]\nbuilds = 3", "\"builds\" is no class, expected one such as \"5-build\"");
    }
}
