-- the keys

CREATE OR REPLACE TEMP TABLE asof_keys AS
SELECT CAST(row_number() OVER () AS INTEGER) AS key_no, * FROM (SELECT DISTINCT k0 FROM requests);

CREATE OR REPLACE TEMP TABLE asof_requests AS
SELECT q.request_no, x.key_no, q.as_of FROM requests q JOIN asof_keys x ON x.k0 = q.k0;

-- the rows, to be searched

CREATE OR REPLACE TEMP TABLE asof_rows AS
SELECT x.key_no, r.event_us, r.counts_from, r.counts_until, r.file, r.row FROM (SELECT k0, event_us, greatest(event_us, known) AS counts_from, superseded - 0 AS counts_until, file, row FROM (SELECT *, coalesce(min(known) OVER (PARTITION BY "c_id" ORDER BY learned_us ASC NULLS FIRST, event_us ASC NULLS FIRST, "c_at" ASC NULLS FIRST, "c_gone" ASC NULLS FIRST, "c_id" ASC NULLS FIRST, "c_known" ASC NULLS FIRST, "c_thing" ASC NULLS FIRST, "c_x" + 0 ASC NULLS FIRST, ("c_x" <> 0 OR NOT signbit("c_x")) ASC NULLS FIRST ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING), 4611686018427387904) AS superseded FROM (SELECT *, learned_us AS known FROM (SELECT "thing" AS k0, "thing" AS "c_thing", "x" AS "c_x", "at" AS "c_at", "known" AS "c_known", "id" AS "c_id", "gone" AS "c_gone", epoch_us("at") AS event_us, epoch_us("known") AS learned_us, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet'])))) WHERE known IS NOT NULL AND "c_id" IS NOT NULL AND "c_gone" IS NOT TRUE AND event_us IS NOT NULL AND k0 IS NOT NULL AND superseded > known) r JOIN asof_keys x ON x.k0 = r.k0;

-- where all requests are for one instant

SELECT r.* FROM asof_rows r JOIN (SELECT key_no, max(event_us) AS event_us FROM asof_rows WHERE counts_from <= 1704067200000000 AND counts_until > 1704067200000000 GROUP BY key_no) m ON r.key_no = m.key_no AND r.event_us = m.event_us WHERE r.counts_from <= 1704067200000000 AND r.counts_until > 1704067200000000;

-- what the search leaves undecided

CREATE OR REPLACE TEMP TABLE asof_instant AS
SELECT q.request_no, q.key_no, q.as_of, max(r.event_us) AS event_us FROM asof_left q JOIN asof_rows r ON q.key_no = r.key_no WHERE r.counts_from <= q.as_of AND r.counts_until > q.as_of GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE asof_tied AS
SELECT request_no, file, row, event_us FROM asof_met UNION ALL SELECT q.request_no, r.file, r.row, r.event_us FROM asof_instant q JOIN asof_rows r ON r.key_no = q.key_no AND r.event_us = q.event_us AND r.counts_from <= q.as_of AND r.counts_until > q.as_of;

CREATE OR REPLACE TEMP TABLE asof_several AS
SELECT request_no FROM asof_tied GROUP BY request_no HAVING count(*) > 1;

CREATE OR REPLACE TEMP TABLE asof_last AS
SELECT t.request_no, t.file, t.row FROM asof_tied t JOIN (SELECT file, row, learned_us FROM (SELECT *, learned_us AS known FROM (SELECT "thing" AS k0, "thing" AS "c_thing", "x" AS "c_x", "at" AS "c_at", "known" AS "c_known", "id" AS "c_id", "gone" AS "c_gone", epoch_us("at") AS event_us, epoch_us("known") AS learned_us, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet'])))) s ON t.file = s.file AND t.row = s.row WHERE t.request_no IN (SELECT request_no FROM asof_several) QUALIFY rank() OVER (PARTITION BY t.request_no ORDER BY learned_us DESC NULLS LAST) = 1;

CREATE OR REPLACE TEMP TABLE asof_equal AS
SELECT request_no FROM asof_last GROUP BY request_no HAVING count(*) > 1;

CREATE OR REPLACE TEMP TABLE asof_winners AS
SELECT request_no, file, row, false AS conflict FROM asof_tied WHERE request_no NOT IN (SELECT request_no FROM asof_several) UNION ALL SELECT request_no, file, row, false FROM asof_last WHERE request_no NOT IN (SELECT request_no FROM asof_equal) UNION ALL SELECT request_no, arg_min(file, place), arg_min(row, place), max(distinct_place) > 1 FROM (SELECT t.request_no, t.file, t.row, row_number() OVER (PARTITION BY t.request_no ORDER BY "c_at" DESC NULLS LAST, "c_gone" DESC NULLS LAST, "c_id" DESC NULLS LAST, "c_known" DESC NULLS LAST, "c_thing" DESC NULLS LAST, "c_x" + 0 DESC NULLS LAST, ("c_x" <> 0 OR NOT signbit("c_x")) DESC NULLS LAST) AS place, dense_rank() OVER (PARTITION BY t.request_no ORDER BY "c_at" DESC NULLS LAST, "c_gone" DESC NULLS LAST, "c_id" DESC NULLS LAST, "c_known" DESC NULLS LAST, "c_thing" DESC NULLS LAST, "c_x" + 0 DESC NULLS LAST, ("c_x" <> 0 OR NOT signbit("c_x")) DESC NULLS LAST) AS distinct_place FROM asof_last t JOIN (SELECT file, row, "c_at", "c_gone", "c_id", "c_known", "c_thing", "c_x" FROM (SELECT *, learned_us AS known FROM (SELECT "thing" AS k0, "thing" AS "c_thing", "x" AS "c_x", "at" AS "c_at", "known" AS "c_known", "id" AS "c_id", "gone" AS "c_gone", epoch_us("at") AS event_us, epoch_us("known") AS learned_us, file_index AS file, file_row_number AS row FROM read_parquet(['rows.parquet'])))) s ON t.file = s.file AND t.row = s.row WHERE t.request_no IN (SELECT request_no FROM asof_equal)) GROUP BY request_no;
