//! Parquet files of exported rows.

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

/// What every Parquet file begins and ends with.
pub const MAGIC: &[u8] = b"PAR1";

/// Reads the file's rows in their order as objects of texts; null and "" are left out.
pub fn rows(bytes: Vec<u8>) -> Result<impl Iterator<Item = Result<Vec<Object>, String>>, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes));
    let reader = builder.and_then(|builder| builder.build()).map_err(|error| error.to_string())?;
    Ok(reader.map(|batch| batch.and_then(|batch| objects(&batch)).map_err(|e| e.to_string())))
}

type Object = Map<String, Value>;

fn objects(batch: &RecordBatch) -> Result<Vec<Object>, arrow::error::ArrowError> {
    let mut objects = vec![Object::new(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let texts = cast(column, &DataType::Utf8)?;
        for (object, text) in objects.iter_mut().zip(texts.as_string::<i32>()) {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                object.insert(field.name().clone(), text.into());
            }
        }
    }
    Ok(objects)
}
