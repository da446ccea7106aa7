//! Digests of everything that defines an image: the same digest, the same image.

use crate::pack::ImageFile;

/// Collects named parts; length-prefixed, so that no two lists of parts run together.
#[derive(Default)]
pub(super) struct Recipe {
    hasher: blake3::Hasher,
}

impl Recipe {
    pub(super) fn part(mut self, name: &str, content: &str) -> Self {
        for text in [name, content] {
            self.hasher.update(&(text.len() as u64).to_le_bytes());
            self.hasher.update(text.as_bytes());
        }
        self
    }

    pub(super) fn files(self, files: &[ImageFile]) -> Self {
        files.iter().fold(self, |recipe, file| {
            recipe.part(file.path, &file.content).part("mode", &format!("{:o}", file.mode))
        })
    }

    /// 32 hexadecimal digits.
    pub(super) fn digest(self) -> String {
        self.hasher.finalize().to_hex().chars().take(32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_recipes_apart() {
        let digest = |parts: &[(&str, &str)]| {
            parts
                .iter()
                .fold(Recipe::default(), |recipe, (name, content)| recipe.part(name, content))
                .digest()
        };
        assert_eq!(digest(&[("a", "b")]), digest(&[("a", "b")]));
        assert_ne!(digest(&[("a", "bc")]), digest(&[("ab", "c")]));
        assert_ne!(digest(&[("a", "b"), ("c", "d")]), digest(&[("c", "d"), ("a", "b")]));
        assert_eq!(digest(&[]).len(), 32);
    }
}
