use std::path::{Path, PathBuf};
use std::time::Duration;

use queue_format::{CommandRecord, InputFile, Labels};

use super::bundle;
use super::job::{Job, Ran, RunError};
use crate::engine::{ContainerEnd, Content, Engine, EngineError, FileIn, Network, RunOutcome, RunRequest};
use crate::slots::Slot;

/// Where inputs are copied before they go into the container.
pub(super) fn copies<E>(job: &Job<'_, E>) -> Vec<(InputFile, PathBuf)> {
    let numbered = job.task.inputs.iter().enumerate();
    numbered.map(|(n, input)| (input.clone(), job.dir.join(format!("input-{n}")))).collect()
}

/// Runs all commands in one container.
pub(super) async fn run<E: Engine>(
    job: &Job<'_, E>,
    image: &str,
    slot: &Slot,
    timeout: Duration,
) -> Result<Ran, RunError> {
    let request = request(job, image, slot, timeout);
    let outcome = match job.engine.run(&request).await {
        Err(EngineError::NoImage(_)) => {
            (job.say)("pull");
            job.engine.pull_image(image).await?;
            (job.say)("run");
            job.engine.run(&request).await?
        }
        ran => ran?,
    };
    Ok(ran(outcome, job.task.commands.len()))
}

fn request<E>(job: &Job<'_, E>, image: &str, slot: &Slot, timeout: Duration) -> RunRequest {
    let task = job.task;
    let labels = Labels { object: (job.unique)(), ..job.labels.clone() };
    let mut env: Vec<String> = task.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut files_in: Vec<FileIn> = copies(job)
        .into_iter()
        .map(|(input, copy)| FileIn { path: input.path, mode: input.mode, content: Content::File(copy) })
        .collect();
    let (command, files_out) = match task.commands.as_slice() {
        [command] => {
            env.extend(bundle::index_of(task, 0).map(|index| format!("{}={index}", bundle::INDEX_VARIABLE)));
            (command.clone(), Vec::new())
        }
        _ => {
            files_in.push(bundle::file(task));
            (bundle::command(), vec![(bundle::STATUS_PATH.to_owned(), bundle::STATUS_BYTES_MAX)])
        }
    };
    let above = |path: &String| Path::new(path).parent().map(|dir| dir.to_string_lossy().into_owned());
    let plain = RunRequest::new(image, command, labels, &slot.limits);
    RunRequest {
        user: task.user.clone().unwrap_or_else(|| plain.user.clone()),
        env,
        files_in,
        dirs_in: task.outputs.iter().filter_map(above).collect(),
        files_out,
        outputs: task.outputs.clone(),
        output_bytes_max: job.config.output_bytes_max,
        network: if task.network { Network::Bridge } else { Network::None },
        timeout,
        log_bytes_max: job.config.log_bytes_max,
        ..plain
    }
}

fn ran(mut outcome: RunOutcome, count: usize) -> Ran {
    let commands = if count == 1 {
        let status = match outcome.end {
            ContainerEnd::Exited(status) => i32::try_from(status).ok(),
            _ => None,
        };
        vec![CommandRecord { status, seconds: Some(outcome.seconds) }]
    } else {
        bundle::records(&outcome.files_out.remove(bundle::STATUS_PATH).unwrap_or_default(), count)
    };
    Ran {
        end: outcome.end,
        commands,
        log: outcome.log,
        peak_memory_bytes: outcome.peak_memory_bytes,
        outputs: outcome.outputs,
        node: outcome.node,
        notes: outcome.warnings,
    }
}
