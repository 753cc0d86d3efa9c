-- up to the rows

CREATE OR REPLACE TEMP TABLE asof_keys AS
SELECT CAST(row_number() OVER () AS INTEGER) AS k, k0 FROM (SELECT DISTINCT k0 FROM requests);

CREATE OR REPLACE TEMP TABLE asof_requests AS
SELECT q.n, x.k, q.a FROM requests q JOIN asof_keys x ON x.k0 = q.k0;

CREATE OR REPLACE TEMP TABLE asof_rows AS
SELECT x.k, r.e, r.v, r.file, r.row FROM (SELECT k0, e, greatest(e, known - 0) AS v, file, row FROM (SELECT *, o AS known FROM (SELECT "thing" AS k0, "thing" AS "c_thing", "x" AS "c_x", "at" AS "c_at", epoch_us("at") AS e, epoch_us("at") + 0 AS o, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet']))) WHERE k0 IS NOT NULL AND e IS NOT NULL AND known IS NOT NULL) r JOIN asof_keys x ON x.k0 = r.k0;

-- where all requests are for one instant

CREATE OR REPLACE TEMP TABLE asof_rows AS
SELECT r.* FROM asof_rows r JOIN (SELECT k, max(e) AS e FROM asof_rows WHERE v <= 1704067200000000 GROUP BY k) m ON r.k = m.k AND r.e = m.e WHERE r.v <= 1704067200000000;

-- the rows of some keys, to be searched

SELECT k - 1 AS k, e, v, file, row FROM asof_rows WHERE k >= 1 AND k < 101;

-- what the search leaves undecided

CREATE OR REPLACE TEMP TABLE asof_instant AS
SELECT q.n, q.k, q.a, r.e FROM asof_left q ASOF JOIN (SELECT k, v, max(e) OVER (PARTITION BY k ORDER BY v) AS e FROM asof_rows WHERE k IN (SELECT k FROM asof_left)) r ON q.k = r.k AND q.a >= r.v;

CREATE OR REPLACE TEMP TABLE asof_tied AS
SELECT n, file, row FROM asof_met UNION ALL SELECT q.n, r.file, r.row FROM asof_instant q JOIN asof_rows r ON r.k = q.k AND r.e = q.e AND r.v <= q.a;

CREATE OR REPLACE TEMP TABLE asof_several AS
SELECT n FROM asof_tied GROUP BY n HAVING count(*) > 1;

CREATE OR REPLACE TEMP TABLE asof_last AS
SELECT t.n, t.file, t.row FROM asof_tied t JOIN (SELECT file, row, o FROM (SELECT *, o AS known FROM (SELECT "thing" AS k0, "thing" AS "c_thing", "x" AS "c_x", "at" AS "c_at", epoch_us("at") AS e, epoch_us("at") + 0 AS o, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet'])))) s ON t.file = s.file AND t.row = s.row WHERE t.n IN (SELECT n FROM asof_several) QUALIFY rank() OVER (PARTITION BY t.n ORDER BY o DESC NULLS LAST) = 1;

CREATE OR REPLACE TEMP TABLE asof_equal AS
SELECT n FROM asof_last GROUP BY n HAVING count(*) > 1;

CREATE OR REPLACE TEMP TABLE asof_winners AS
SELECT n, file, row, false AS conflict FROM asof_tied WHERE n NOT IN (SELECT n FROM asof_several) UNION ALL SELECT n, file, row, false FROM asof_last WHERE n NOT IN (SELECT n FROM asof_equal) UNION ALL SELECT n, arg_min(file, place), arg_min(row, place), max(distinct_place) > 1 FROM (SELECT t.n, t.file, t.row, row_number() OVER (PARTITION BY t.n ORDER BY "c_at" DESC NULLS LAST, "c_thing" DESC NULLS LAST, "c_x" DESC NULLS LAST, ("c_x" <> 0 OR NOT signbit("c_x")) DESC NULLS LAST) AS place, dense_rank() OVER (PARTITION BY t.n ORDER BY "c_at" DESC NULLS LAST, "c_thing" DESC NULLS LAST, "c_x" DESC NULLS LAST, ("c_x" <> 0 OR NOT signbit("c_x")) DESC NULLS LAST) AS distinct_place FROM asof_last t JOIN (SELECT file, row, "c_at", "c_thing", "c_x" FROM (SELECT *, o AS known FROM (SELECT "thing" AS k0, "thing" AS "c_thing", "x" AS "c_x", "at" AS "c_at", epoch_us("at") AS e, epoch_us("at") + 0 AS o, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet'])))) s ON t.file = s.file AND t.row = s.row WHERE t.n IN (SELECT n FROM asof_equal)) GROUP BY n;
