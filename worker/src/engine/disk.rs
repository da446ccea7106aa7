use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::query_parameters::ListImagesOptionsBuilder;
use futures_util::StreamExt;
use queue_format::LABEL_OBJECT;
use uuid::Uuid;

use super::connect::Inner;
use base_images::{ListedContainer, Which, list_images};

/// How often the file system's free space is looked at, which costs nothing.
const LOOK: Duration = Duration::from_secs(1);
/// How often layers are measured whatever the file system says: others may free as much as is filled here.
const MEASURE: Duration = Duration::from_secs(15);
/// Measuring walks the whole layer: it may take one part in so many of the engine's time, and of a watched
/// container's when the file system fills quickly.
const MEASURE_SHARE: u32 = 20;
const MEASURE_SHARE_URGENT: u32 = 4;
/// A file for so many bytes of the limit, as ext4 shares its inodes out: neither runs out before the other.
const BYTES_PER_FILE: u64 = 1 << 14;
/// What every file that an engine tells of as changed has once, and no file's name can have.
const CHANGE: &[u8] = b"\"Kind\":";

/// Watches the writable layers of one object, a run or a build, where the engine cannot limit them.
pub(super) struct DiskWatch<'a> {
    pub(super) inner: &'a Inner,
    pub(super) object: Uuid,
    pub(super) limit_bytes: u64,
    /// What a build's images have beyond themselves; a run makes no images.
    pub(super) base_bytes: Option<u64>,
}

#[derive(Clone, Copy)]
struct Free {
    bytes: u64,
    files: u64,
}

impl DiskWatch<'_> {
    /// Returns when the layers are larger than the limit, or have more files than belong to so many bytes.
    pub(super) async fn until_full(&self) {
        let files_max = self.limit_bytes / BYTES_PER_FILE;
        let mut size_bytes = 0;
        let mut measured_at = Instant::now();
        let mut measuring_took = Duration::ZERO;
        let mut then = self.free();
        let files_then = then.map(|free| free.files);
        loop {
            tokio::time::sleep(LOOK).await;
            let left_bytes = self.limit_bytes - size_bytes;
            let now = self.free();
            let fills_quickly = match (then, now) {
                (Some(then), Some(now)) => then.bytes.saturating_sub(now.bytes) > left_bytes / 2,
                _ => false,
            };
            let has_many_files = match (files_then, now) {
                (Some(then), Some(now)) => then.saturating_sub(now.files) > files_max / 2,
                _ => false,
            };
            let is_urgent = fills_quickly || has_many_files;
            let share = if is_urgent { MEASURE_SHARE_URGENT } else { MEASURE_SHARE };
            let is_due = is_urgent || measured_at.elapsed() >= MEASURE;
            if !is_due || measured_at.elapsed() < measuring_took * share {
                continue;
            }
            then = now;
            let began = Instant::now();
            let containers = self.containers().await;
            if has_many_files && self.has_more_files(&containers, files_max).await {
                return;
            }
            size_bytes = self.size_bytes(&containers).await.unwrap_or(size_bytes);
            measured_at = Instant::now();
            measuring_took = measured_at - began;
            if size_bytes > self.limit_bytes {
                return;
            }
        }
    }

    /// Whether the layers are larger than the limit now.
    pub(super) async fn is_full(&self) -> bool {
        let containers = self.containers().await;
        self.size_bytes(&containers).await.is_some_and(|size_bytes| size_bytes > self.limit_bytes)
    }

    fn free(&self) -> Option<Free> {
        let found = nix::sys::statvfs::statvfs(&self.inner.facts.root_dir).ok()?;
        let bytes = found.blocks_available().saturating_mul(found.fragment_size());
        Some(Free { bytes, files: found.files_free() })
    }

    /// The object's containers: id and size of the writable layer.
    async fn containers(&self) -> Vec<(String, u64)> {
        let label = format!("{LABEL_OBJECT}={}", self.object);
        let listed = self.inner.list_containers(Which::AllWithSizes, &label).await.unwrap_or_default();
        let size = |row: &ListedContainer| row.size_rw.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
        listed.into_iter().map(|row| (size(&row), row.id)).map(|(size, id)| (id, size)).collect()
    }

    /// What stands in the writable layers, and in the layers that a build has made of earlier ones.
    async fn size_bytes(&self, containers: &[(String, u64)]) -> Option<u64> {
        let written: u64 = containers.iter().map(|(_, bytes)| bytes).sum();
        let Some(base_bytes) = self.base_bytes else { return Some(written) };
        let options = ListImagesOptionsBuilder::new().all(true).filters(&self.filter()).build();
        let images = list_images(&self.inner.client, options).await.ok()?;
        let largest = images.iter().filter_map(|image| u64::try_from(image.size).ok()).max();
        Some(written + largest.map_or(0, |bytes| bytes.saturating_sub(base_bytes)))
    }

    /// Whether a container has changed more files; the engine's answer is read no further.
    async fn has_more_files(&self, containers: &[(String, u64)], files_max: u64) -> bool {
        let mut count = 0;
        for (id, _) in containers {
            let asked = self.inner.lookup.get(&format!("/containers/{id}/changes"));
            let Ok(answer) = asked.send().await else { continue };
            let mut pieces = answer.bytes_stream();
            let mut text = Vec::new();
            while let Some(Ok(piece)) = pieces.next().await {
                text.extend_from_slice(&piece);
                count += text.windows(CHANGE.len()).filter(|window| *window == CHANGE).count() as u64;
                // What a piece ends with may be the beginning of the next.
                text.drain(..text.len().saturating_sub(CHANGE.len() - 1));
                if count > files_max {
                    return true;
                }
            }
        }
        false
    }

    fn filter(&self) -> HashMap<String, Vec<String>> {
        [("label".to_owned(), vec![format!("{LABEL_OBJECT}={}", self.object)])].into()
    }
}
