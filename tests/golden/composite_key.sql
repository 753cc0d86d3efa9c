-- the keys

CREATE OR REPLACE TEMP TABLE asof_keys AS
SELECT CAST(row_number() OVER () AS INTEGER) AS key_no, * FROM (SELECT DISTINCT k0, k1 FROM requests);

CREATE OR REPLACE TEMP TABLE asof_requests AS
SELECT q.request_no, x.key_no, q.as_of FROM requests q JOIN asof_keys x ON x.k0 = q.k0 AND x.k1 = q.k1;

-- the rows, to be searched

SELECT x.key_no, r.event_us, r.counts_from, r.file, r.row FROM (SELECT k0, k1, event_us, greatest(event_us, known) AS counts_from, file, row FROM (SELECT *, learned_us AS known FROM (SELECT "thing" AS k0, "other" AS k1, "thing" AS "c_thing", "other" AS "c_other", "x" AS "c_x", "at" AS "c_at", epoch_us("at") AS event_us, epoch_us("at") + 0 AS learned_us, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet']))) WHERE known IS NOT NULL AND event_us IS NOT NULL AND k0 IS NOT NULL AND k1 IS NOT NULL) r JOIN asof_keys x ON x.k0 = r.k0 AND x.k1 = r.k1;

-- where all requests are for one instant

SELECT r.* FROM asof_rows r JOIN (SELECT key_no, max(event_us) AS event_us FROM asof_rows WHERE counts_from <= 1704067200000000 GROUP BY key_no) m ON r.key_no = m.key_no AND r.event_us = m.event_us WHERE r.counts_from <= 1704067200000000;

-- what the search leaves undecided

CREATE OR REPLACE TEMP TABLE asof_tied AS
SELECT request_no, file, row, event_us FROM asof_met;

CREATE OR REPLACE TEMP TABLE asof_several AS
SELECT request_no FROM asof_tied GROUP BY request_no HAVING count(*) > 1;

CREATE OR REPLACE TEMP TABLE asof_last AS
SELECT t.request_no, t.file, t.row FROM asof_tied t JOIN (SELECT file, row, learned_us FROM (SELECT *, learned_us AS known FROM (SELECT "thing" AS k0, "other" AS k1, "thing" AS "c_thing", "other" AS "c_other", "x" AS "c_x", "at" AS "c_at", epoch_us("at") AS event_us, epoch_us("at") + 0 AS learned_us, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet'])))) s ON t.file = s.file AND t.row = s.row WHERE t.request_no IN (SELECT request_no FROM asof_several) QUALIFY rank() OVER (PARTITION BY t.request_no ORDER BY learned_us DESC NULLS LAST) = 1;

CREATE OR REPLACE TEMP TABLE asof_equal AS
SELECT request_no FROM asof_last GROUP BY request_no HAVING count(*) > 1;

CREATE OR REPLACE TEMP TABLE asof_winners AS
SELECT request_no, file, row, false AS conflict FROM asof_tied WHERE request_no NOT IN (SELECT request_no FROM asof_several) UNION ALL SELECT request_no, file, row, false FROM asof_last WHERE request_no NOT IN (SELECT request_no FROM asof_equal) UNION ALL SELECT request_no, arg_min(file, place), arg_min(row, place), max(distinct_place) > 1 FROM (SELECT t.request_no, t.file, t.row, row_number() OVER (PARTITION BY t.request_no ORDER BY "c_at" DESC NULLS LAST, "c_other" DESC NULLS LAST, "c_thing" DESC NULLS LAST, "c_x" + 0 DESC NULLS LAST, ("c_x" <> 0 OR NOT signbit("c_x")) DESC NULLS LAST) AS place, dense_rank() OVER (PARTITION BY t.request_no ORDER BY "c_at" DESC NULLS LAST, "c_other" DESC NULLS LAST, "c_thing" DESC NULLS LAST, "c_x" + 0 DESC NULLS LAST, ("c_x" <> 0 OR NOT signbit("c_x")) DESC NULLS LAST) AS distinct_place FROM asof_last t JOIN (SELECT file, row, "c_at", "c_other", "c_thing", "c_x" FROM (SELECT *, learned_us AS known FROM (SELECT "thing" AS k0, "other" AS k1, "thing" AS "c_thing", "other" AS "c_other", "x" AS "c_x", "at" AS "c_at", epoch_us("at") AS event_us, epoch_us("at") + 0 AS learned_us, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet'])))) s ON t.file = s.file AND t.row = s.row WHERE t.request_no IN (SELECT request_no FROM asof_equal)) GROUP BY request_no;
