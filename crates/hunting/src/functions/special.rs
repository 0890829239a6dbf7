//! Mathematics beyond arithmetic, units of measure, statistics.

use super::{Cell, RowFunction};
use statrs::distribution::{Beta, Continuous, ContinuousCDF, StudentsT};
use statrs::function::{erf, gamma};

pub fn find(name: &str) -> Option<RowFunction> {
    macro_rules! real {
        ($work:expr) => {
            |_, cells| Cell::from_real(cells[0].as_real().map($work))
        };
    }
    Some(match name {
        "acos" => real!(f64::acos),
        "asin" => real!(f64::asin),
        "atan" => real!(f64::atan),
        "atan2" => |_, cells| {
            Cell::from_real(cells[0].as_real().zip(cells[1].as_real()).map(|(y, x)| y.atan2(x)))
        },
        "cot" => real!(|x: f64| 1.0 / x.tan()),
        "degrees" => real!(f64::to_degrees),
        "radians" => real!(f64::to_radians),
        "exp10" => real!(|x: f64| 10f64.powf(x)),
        "erf" => real!(erf::erf),
        "erfc" => real!(erf::erfc),
        "gamma" => real!(|x: f64| match x {
            // Factorials are exact as long as a real holds them.
            whole if whole.fract() == 0.0 && (1.0..=23.0).contains(&whole) => {
                (1..whole as u64).product::<u64>() as f64
            }
            x => gamma::gamma(x),
        }),
        "loggamma" => real!(gamma::ln_gamma),
        "beta_cdf" => {
            |_, cells| beta(cells, |x, beta| (0.0..=1.0).contains(&x).then(|| beta.cdf(x)))
        }
        "beta_pdf" => {
            |_, cells| beta(cells, |x, beta| (0.0..=1.0).contains(&x).then(|| beta.pdf(x)))
        }
        "beta_inv" => {
            |_, cells| beta(cells, |p, beta| (0.0..=1.0).contains(&p).then(|| beta.inverse_cdf(p)))
        }
        "welch_test" => |_, cells| {
            let numbers: Option<Vec<f64>> = cells.iter().map(Cell::as_real).collect();
            Cell::from_real(numbers.and_then(|n| welch(n[0], n[1], n[2], n[3], n[4], n[5])))
        },
        "bitset_count_ones" => {
            |_, cells| Cell::from_long(cells[0].as_long().map(|bits| bits.count_ones().into()))
        }
        "around" => |_, cells| match (&cells[0], &cells[1], &cells[2]) {
            (Cell::Long(value), Cell::Long(center), Cell::Long(delta)) => {
                Cell::Bool(value.abs_diff(*center) <= delta.unsigned_abs())
            }
            (value, center, delta) => match (value.as_real(), center.as_real(), delta.as_real()) {
                (Some(value), Some(center), Some(delta)) => {
                    Cell::Bool((value - center).abs() <= delta.abs())
                }
                _ => Cell::Null,
            },
        },
        "convert_angle" => |_, cells| converted(cells, ANGLES),
        "convert_energy" => |_, cells| converted(cells, ENERGIES),
        "convert_force" => |_, cells| converted(cells, FORCES),
        "convert_length" => |_, cells| converted(cells, LENGTHS),
        "convert_mass" => |_, cells| converted(cells, MASSES),
        "convert_speed" => |_, cells| converted_speed(cells),
        "convert_temperature" => |_, cells| converted_temperature(cells),
        "convert_volume" => |_, cells| converted(cells, VOLUMES),
        _ => return None,
    })
}

/// NaN outside the distribution's domain.
fn beta<'a>(cells: &[Cell<'a>], work: fn(f64, Beta) -> Option<f64>) -> Cell<'a> {
    match (cells[0].as_real(), cells[1].as_real(), cells[2].as_real()) {
        (Some(x), Some(a), Some(b)) => {
            let found = Beta::new(a, b).ok().and_then(|beta| work(x, beta));
            Cell::Real(found.unwrap_or(f64::NAN))
        }
        _ => Cell::Null,
    }
}

/// Two-sided probability that two means are equal, variances unknown.
fn welch(m1: f64, v1: f64, n1: f64, m2: f64, v2: f64, n2: f64) -> Option<f64> {
    let (a, b) = (v1 / n1, v2 / n2);
    let freedom = (a + b).powi(2) / (a * a / (n1 - 1.0) + b * b / (n2 - 1.0));
    let t = (m1 - m2) / (a + b).sqrt();
    Some(2.0 * (1.0 - StudentsT::new(0.0, 1.0, freedom).ok()?.cdf(t.abs())))
}

/// Name and size in the first unit of the table.
type Units = &'static [(&'static str, f64)];

fn size(units: Units, name: &str) -> Option<f64> {
    units.iter().find(|(known, _)| *known == name).map(|(_, size)| *size)
}

fn converted<'a>(cells: &[Cell<'a>], units: Units) -> Cell<'a> {
    let from = size(units, cells[1].as_text());
    let to = size(units, cells[2].as_text());
    match (cells[0].as_real(), from, to) {
        (Some(value), Some(from), Some(to)) => Cell::Real(value * from / to),
        _ => Cell::Null,
    }
}

/// A length `Per` a time.
fn converted_speed<'a>(cells: &[Cell<'a>]) -> Cell<'a> {
    let speed = |name: &str| {
        if name == "Knot" {
            return Some(1852.0 / 3600.0);
        }
        let (length, time) = name.split_once("Per")?;
        Some(size(LENGTHS, length)? / size(TIMES, time)?)
    };
    match (cells[0].as_real(), speed(cells[1].as_text()), speed(cells[2].as_text())) {
        (Some(value), Some(from), Some(to)) => Cell::Real(value * from / to),
        _ => Cell::Null,
    }
}

fn converted_temperature<'a>(cells: &[Cell<'a>]) -> Cell<'a> {
    // Kelvin = value · factor + offset.
    let scale = |name: &str| {
        Some(match name {
            "Kelvin" => (1.0, 0.0),
            "DegreeCelsius" => (1.0, 273.15),
            "DegreeFahrenheit" => (5.0 / 9.0, 459.67 * 5.0 / 9.0),
            "DegreeRankine" => (5.0 / 9.0, 0.0),
            "DegreeReaumur" => (1.25, 273.15),
            "DegreeDelisle" => (-2.0 / 3.0, 373.15),
            "DegreeNewton" => (100.0 / 33.0, 273.15),
            "DegreeRoemer" => (40.0 / 21.0, 273.15 - 7.5 * 40.0 / 21.0),
            "MillidegreeCelsius" => (1e-3, 273.15),
            "SolarTemperature" => (5778.0, 0.0),
            _ => return None,
        })
    };
    match (cells[0].as_real(), scale(cells[1].as_text()), scale(cells[2].as_text())) {
        (Some(value), Some((a, b)), Some((c, d))) => Cell::Real((value * a + b - d) / c),
        _ => Cell::Null,
    }
}

const TIMES: Units = &[("Second", 1.0), ("Minute", 60.0), ("Hour", 3600.0)];

const ANGLES: Units = &[
    ("Degree", 1.0),
    ("Arcminute", 1.0 / 60.0),
    ("Arcsecond", 1.0 / 3600.0),
    ("Centiradian", 0.01 * 180.0 / std::f64::consts::PI),
    ("Deciradian", 0.1 * 180.0 / std::f64::consts::PI),
    ("Gradian", 0.9),
    ("Microdegree", 1e-6),
    ("Microradian", 1e-6 * 180.0 / std::f64::consts::PI),
    ("Millidegree", 1e-3),
    ("Milliradian", 1e-3 * 180.0 / std::f64::consts::PI),
    ("Nanodegree", 1e-9),
    ("Nanoradian", 1e-9 * 180.0 / std::f64::consts::PI),
    ("NatoMil", 360.0 / 6400.0),
    ("Radian", 180.0 / std::f64::consts::PI),
    ("Revolution", 360.0),
    ("Tilt", 90.0),
];

const ENERGIES: Units = &[
    ("Joule", 1.0),
    ("BritishThermalUnit", 1055.05585262),
    ("Calorie", 4.184),
    ("DecathermEc", 1.05505585262e9),
    ("DecathermImperial", 1.05505585257348e9),
    ("DecathermUs", 1.054804e9),
    ("ElectronVolt", 1.602176634e-19),
    ("Erg", 1e-7),
    ("FootPound", 1.3558179483314),
    ("GigabritishThermalUnit", 1.05505585262e12),
    ("GigaelectronVolt", 1.602176634e-10),
    ("Gigajoule", 1e9),
    ("GigawattDay", 8.64e13),
    ("GigawattHour", 3.6e12),
    ("HorsepowerHour", 2.684519537696172e6),
    ("KilobritishThermalUnit", 1.05505585262e6),
    ("Kilocalorie", 4184.0),
    ("KiloelectronVolt", 1.602176634e-16),
    ("Kilojoule", 1e3),
    ("KilowattDay", 8.64e7),
    ("KilowattHour", 3.6e6),
    ("MegabritishThermalUnit", 1.05505585262e9),
    ("Megacalorie", 4.184e6),
    ("MegaelectronVolt", 1.602176634e-13),
    ("Megajoule", 1e6),
    ("MegawattDay", 8.64e10),
    ("MegawattHour", 3.6e9),
    ("Millijoule", 1e-3),
    ("TeraelectronVolt", 1.602176634e-7),
    ("TerawattDay", 8.64e16),
    ("TerawattHour", 3.6e15),
    ("ThermEc", 1.05505585262e8),
    ("ThermImperial", 1.05505585257348e8),
    ("ThermUs", 1.054804e8),
    ("WattDay", 86400.0),
    ("WattHour", 3600.0),
];

const FORCES: Units = &[
    ("Newton", 1.0),
    ("Decanewton", 10.0),
    ("Dyn", 1e-5),
    ("KilogramForce", 9.80665),
    ("Kilonewton", 1e3),
    ("KiloPond", 9.80665),
    ("KilopoundForce", 4448.2216152605),
    ("Meganewton", 1e6),
    ("Micronewton", 1e-6),
    ("Millinewton", 1e-3),
    ("OunceForce", 0.278_013_850_953_781_2),
    ("Poundal", 0.138254954376),
    ("PoundForce", 4.4482216152605),
    ("ShortTonForce", 8896.443230521),
    ("TonneForce", 9806.65),
];

const LENGTHS: Units = &[
    ("Meter", 1.0),
    ("Angstrom", 1e-10),
    ("AstronomicalUnit", 1.495978707e11),
    ("Centimeter", 1e-2),
    ("Chain", 20.1168),
    ("DataMile", 1828.8),
    ("Decameter", 10.0),
    ("Decimeter", 0.1),
    ("DtpPica", 0.0254 / 6.0),
    ("DtpPoint", 0.0254 / 72.0),
    ("Fathom", 1.8288),
    ("Foot", 0.3048),
    ("Hand", 0.1016),
    ("Hectometer", 100.0),
    ("Inch", 0.0254),
    ("KilolightYear", 9.46073047258e18),
    ("Kilometer", 1e3),
    ("Kiloparsec", 3.08567758128e19),
    ("LightYear", 9.46073047258e15),
    ("MegalightYear", 9.46073047258e21),
    ("Megaparsec", 3.08567758128e22),
    ("Microinch", 2.54e-8),
    ("Micrometer", 1e-6),
    ("Mil", 2.54e-5),
    ("Mile", 1609.344),
    ("Millimeter", 1e-3),
    ("Nanometer", 1e-9),
    ("NauticalMile", 1852.0),
    ("Parsec", 3.08567758128e16),
    ("PrinterPica", 0.0254 * 0.166044),
    ("PrinterPoint", 0.0254 * 0.013837),
    ("Shackle", 27.432),
    ("SolarRadius", 6.95510e8),
    ("Twip", 0.0254 / 1440.0),
    ("UsSurveyFoot", 1200.0 / 3937.0),
    ("Yard", 0.9144),
];

const MASSES: Units = &[
    ("Kilogram", 1.0),
    ("Centigram", 1e-5),
    ("Decagram", 1e-2),
    ("Decigram", 1e-4),
    ("EarthMass", 5.9722e24),
    ("Grain", 6.479891e-5),
    ("Gram", 1e-3),
    ("Hectogram", 0.1),
    ("Kilopound", 453.59237),
    ("Kilotonne", 1e6),
    ("LongHundredweight", 50.80234544),
    ("LongTon", 1016.0469088),
    ("Megapound", 453592.37),
    ("Megatonne", 1e9),
    ("Microgram", 1e-9),
    ("Milligram", 1e-6),
    ("Nanogram", 1e-12),
    ("Ounce", 0.028349523125),
    ("Pound", 0.45359237),
    ("ShortHundredweight", 45.359237),
    ("ShortTon", 907.18474),
    ("Slug", 14.59390293720636),
    ("SolarMass", 1.98947e30),
    ("Stone", 6.35029318),
    ("Tonne", 1e3),
];

const VOLUMES: Units = &[
    ("CubicMeter", 1.0),
    ("AcreFoot", 1233.48183754752),
    ("AuTablespoon", 2e-5),
    ("BoardFoot", 0.002359737216),
    ("Centiliter", 1e-5),
    ("CubicCentimeter", 1e-6),
    ("CubicDecimeter", 1e-3),
    ("CubicFoot", 0.028316846592),
    ("CubicHectometer", 1e6),
    ("CubicInch", 1.6387064e-5),
    ("CubicKilometer", 1e9),
    ("CubicMicrometer", 1e-18),
    ("CubicMile", 4.168_181_825_440_58e9),
    ("CubicMillimeter", 1e-9),
    ("CubicYard", 0.764554857984),
    ("Deciliter", 1e-4),
    ("HectocubicFoot", 2.8316846592),
    ("HectocubicMeter", 100.0),
    ("Hectoliter", 0.1),
    ("ImperialBeerBarrel", 0.16365924),
    ("ImperialGallon", 0.00454609),
    ("ImperialOunce", 2.84130625e-5),
    ("ImperialPint", 5.6826125e-4),
    ("ImperialQuart", 0.0011365225),
    ("KilocubicFoot", 28.316846592),
    ("KilocubicMeter", 1e3),
    ("KiloimperialGallon", 4.54609),
    ("Kiloliter", 1.0),
    ("KilousGallon", 3.785411784),
    ("Liter", 1e-3),
    ("MegacubicFoot", 28316.846592),
    ("MegaimperialGallon", 4546.09),
    ("Megaliter", 1e3),
    ("MegausGallon", 3785.411784),
    ("MetricCup", 2.5e-4),
    ("MetricTeaspoon", 5e-6),
    ("Microliter", 1e-9),
    ("Milliliter", 1e-6),
    ("OilBarrel", 0.158987294928),
    ("UkTablespoon", 1.5e-5),
    ("UsBeerBarrel", 0.117347765304),
    ("UsCustomaryCup", 2.365882365e-4),
    ("UsGallon", 0.003785411784),
    ("UsLegalCup", 2.4e-4),
    ("UsOunce", 2.95735295625e-5),
    ("UsPint", 4.73176473e-4),
    ("UsQuart", 9.46352946e-4),
    ("UsTablespoon", 1.478676478125e-5),
    ("UsTeaspoon", 4.92892159375e-6),
];
