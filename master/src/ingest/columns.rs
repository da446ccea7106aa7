use std::fs::File;
use std::io;

use parquet::errors::ParquetError;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::record::{Field, Row};
use serde_json::Value;

/// The rows of a Parquet file, read as they are asked for.
pub(super) fn rows_of(file: File) -> io::Result<Box<dyn Iterator<Item = io::Result<Value>>>> {
    let reader = SerializedFileReader::new(file).map_err(|error| broken(&error))?;
    Ok(Box::new(reader.into_iter().map(|row| row.map(object).map_err(|error| broken(&error)))))
}

fn broken(error: &ParquetError) -> io::Error {
    io::Error::other(format!("it is no whole Parquet file: {error}"))
}

fn object(row: Row) -> Value {
    Value::Object(row.into_columns().into_iter().map(|(name, field)| (name, value(&field))).collect())
}

/// Times are milliseconds since 1970, as rows in JSON have them.
fn value(field: &Field) -> Value {
    match field {
        Field::TimestampMillis(since) => Value::from(*since),
        Field::TimestampMicros(since) => Value::from(since.div_euclid(1000)),
        other => other.to_json_value(),
    }
}
