//! The scalar types of Kusto, and values of them.

use std::fmt;
use std::sync::Arc;

/// Number of 100 ns ticks in one second; the unit of `datetime` and `timespan`.
pub const TICKS_PER_SECOND: i64 = 10_000_000;
/// Number of 100 ns ticks in one day.
pub const TICKS_PER_DAY: i64 = 864_000_000_000;
/// 9999-12-31T23:59:59.9999999Z, the last `datetime`, in ticks since 0001-01-01T00:00:00Z.
pub const MAX_DATETIME_TICKS: i64 = 3_155_378_975_999_999_999;
/// 1970-01-01T00:00:00Z in ticks since 0001-01-01T00:00:00Z.
pub const UNIX_EPOCH_TICKS: i64 = 621_355_968_000_000_000;

/// A scalar type (Kusto documentation, "Scalar data types").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    Bool,
    /// 32 bits, signed.
    Int,
    /// 64 bits, signed.
    Long,
    /// IEEE 754, 64 bits; NaN and the infinities are values.
    Real,
    /// 34 significant decimal digits.
    Decimal,
    /// Ticks of 100 ns since 0001-01-01T00:00:00Z.
    DateTime,
    /// Signed ticks of 100 ns.
    TimeSpan,
    Guid,
    /// UTF-8; there is no null string, missing text is "".
    String,
    /// A JSON value that keeps its own type.
    Dynamic,
}

impl Type {
    /// The name that Kusto prints, for example `datetime`.
    pub fn name(self) -> &'static str {
        match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Long => "long",
            Type::Real => "real",
            Type::Decimal => "decimal",
            Type::DateTime => "datetime",
            Type::TimeSpan => "timespan",
            Type::Guid => "guid",
            Type::String => "string",
            Type::Dynamic => "dynamic",
        }
    }

    /// Reads a type name as queries write it, synonyms (`date`, `time`, `double`, `uniqueid` …) too.
    pub fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "bool" | "boolean" => Type::Bool,
            "int" | "int32" => Type::Int,
            "long" | "int64" => Type::Long,
            "real" | "double" => Type::Real,
            "decimal" => Type::Decimal,
            "datetime" | "date" => Type::DateTime,
            "timespan" | "time" => Type::TimeSpan,
            "guid" | "uuid" | "uniqueid" => Type::Guid,
            "string" => Type::String,
            "dynamic" => Type::Dynamic,
            _ => return None,
        })
    }

    /// The name of the .NET type behind it, as `getschema` prints it in `DataType`.
    pub fn dotnet_name(self) -> &'static str {
        match self {
            Type::Bool => "System.SByte",
            Type::Int => "System.Int32",
            Type::Long => "System.Int64",
            Type::Real => "System.Double",
            Type::Decimal => "System.Data.SqlTypes.SqlDecimal",
            Type::DateTime => "System.DateTime",
            Type::TimeSpan => "System.TimeSpan",
            Type::Guid => "System.Guid",
            Type::String => "System.String",
            Type::Dynamic => "System.Object",
        }
    }

    /// `int`, `long`, `real` and `decimal`.
    pub fn is_numeric(self) -> bool {
        matches!(self, Type::Int | Type::Long | Type::Real | Type::Decimal)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A constant of a query.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// The null of a type; never of [`Type::String`], whose missing value is "".
    Null(Type),
    Bool(bool),
    Int(i32),
    Long(i64),
    Real(f64),
    /// Unscaled value and number of digits after the point.
    Decimal(i128, u8),
    /// Ticks since 0001-01-01T00:00:00Z.
    DateTime(i64),
    /// Ticks.
    TimeSpan(i64),
    /// Big-endian bytes of the text form.
    Guid(u128),
    String(Arc<str>),
    /// Compact JSON text, numbers as written.
    Dynamic(Arc<str>),
}

impl Value {
    pub fn ty(&self) -> Type {
        match self {
            Value::Null(ty) => *ty,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Long(_) => Type::Long,
            Value::Real(_) => Type::Real,
            Value::Decimal(..) => Type::Decimal,
            Value::DateTime(_) => Type::DateTime,
            Value::TimeSpan(_) => Type::TimeSpan,
            Value::Guid(_) => Type::Guid,
            Value::String(_) => Type::String,
            Value::Dynamic(_) => Type::Dynamic,
        }
    }
}
