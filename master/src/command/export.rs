use std::io::Write;
use std::path::Path;

use queue_format::{AcceptanceClass, Spool};

use super::cli::{ExportArguments, RowFormat};
use super::{CommandError, Success};
use crate::export::{Export, Exported, Filter, Format};
use crate::text::{list_of, plural};

/// Writes a dataset.
pub(super) fn run(arguments: &ExportArguments, out: &mut dyn Write) -> Result<Success, CommandError> {
    let classes = arguments.class.iter().map(|text| text.parse::<AcceptanceClass>());
    let classes: Vec<AcceptanceClass> =
        classes.collect::<Result<_, _>>().map_err(|why| CommandError::usage(format!("--class: {why}")))?;
    let filter = if classes.is_empty() { Filter::All } else { Filter::Classes(classes) };
    let format = match arguments.format {
        RowFormat::Openswe => Format::OpenSwe,
        RowFormat::Swebench => Format::SweBench,
    };
    let spool = Spool::open(&arguments.spool.spool)?;
    let export = Export { spool: &spool, format, filter: &filter };
    let exported = if arguments.out == Path::new("-") {
        let exported = export.to_writer(&mut &mut *out)?;
        // The output is the dataset: what there is to say goes elsewhere.
        print(&exported, "standard output", &mut std::io::stderr())?;
        exported
    } else {
        let exported = export.to_file(&arguments.out)?;
        print(&exported, &arguments.out.display().to_string(), out)?;
        exported
    };
    Ok((exported.damaged == 0).into())
}

fn print(exported: &Exported, name: &str, out: &mut dyn Write) -> Result<(), CommandError> {
    let of = |counts| match list_of(counts) {
        list if list.is_empty() => list,
        list => format!(" ({list})"),
    };
    let rows: usize = exported.rows.values().sum();
    writeln!(out, "{name}: {}{}", plural(rows, "row"), of(&exported.rows))?;
    let left_out: usize = exported.left_out.values().sum();
    if left_out > 0 {
        writeln!(out, "left out by --class: {left_out}{}", of(&exported.left_out))?;
    }
    let Exported { damaged: count, shown, .. } = exported;
    if *count == 0 {
        return Ok(());
    }
    writeln!(out, "{} in done/ could not be exported:", plural(*count, "task"))?;
    for (id, why) in shown {
        writeln!(out, "  {id}: {why}")?;
    }
    if *count > shown.len() {
        writeln!(out, "  and {} more", count - shown.len())?;
    }
    writeln!(out, "  to make them anew: mv their files from done/ to pending/5-build/")?;
    Ok(())
}
