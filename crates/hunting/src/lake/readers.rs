//! Reading Parquet files for queries: footers are cached, errors say which file it was.

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use std::ops::Range;
use std::sync::Arc;

/// Opens a lake's files through DataFusion's cache of footers.
#[derive(Debug)]
pub struct NamingReaders(pub CachedParquetFileReaderFactory);

impl ParquetFileReaderFactory for NamingReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        metadata_size_hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let path = format!("/{}", file.object_meta.location);
        let reader = self.0.create_reader(partition, file, metadata_size_hint, metrics)?;
        Ok(Box::new(NamingReader { path, reader }))
    }
}

struct NamingReader {
    path: String,
    reader: Box<dyn AsyncFileReader + Send>,
}

fn named(path: &str, error: &ParquetError) -> ParquetError {
    ParquetError::General(format!("{path}: {error}"))
}

impl AsyncFileReader for NamingReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let (path, reader) = (&self.path, &mut self.reader);
        async move { reader.get_bytes(range).await.map_err(|error| named(path, &error)) }.boxed()
    }

    fn get_byte_ranges(
        &mut self,
        ranges: Vec<Range<u64>>,
    ) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        let (path, reader) = (&self.path, &mut self.reader);
        async move { reader.get_byte_ranges(ranges).await.map_err(|error| named(path, &error)) }
            .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let (path, reader) = (&self.path, &mut self.reader);
        async move { reader.get_metadata(options).await.map_err(|error| named(path, &error)) }
            .boxed()
    }
}
