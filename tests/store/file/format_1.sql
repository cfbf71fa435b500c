-- A store of format 1, as `.dump` writes it: made by the program before 0.1.0 was released.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE orders(id INTEGER PRIMARY KEY, item TEXT, total REAL, paid BOOLEAN DEFAULT 0);
INSERT INTO orders VALUES(1,'chair',49.499999999999999998,1);
INSERT INTO orders VALUES(2,'table',120.0,0);
CREATE TABLE IF NOT EXISTS "_appliance_meta" (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT INTO _appliance_meta VALUES('clean',1);
INSERT INTO _appliance_meta VALUES('epoch','bedb68b383adc743');
INSERT INTO _appliance_meta VALUES('format',1);
INSERT INTO _appliance_meta VALUES('generation',2);
INSERT INTO _appliance_meta VALUES('incarnation','9180e25ae0cc16d6');
INSERT INTO _appliance_meta VALUES('journal_mode','delete');
INSERT INTO _appliance_meta VALUES('secret','cdb912a1ef6117b7f9e9a4de466495dbaaf8d1ac36f316dd532084e4c836adc8');
CREATE TABLE IF NOT EXISTS "_appliance_topic" (
    name TEXT PRIMARY KEY COLLATE NOCASE, durable INTEGER NOT NULL, permission INTEGER NOT NULL, owner TEXT
) WITHOUT ROWID;
INSERT INTO _appliance_topic VALUES('lobby',1,589696,'administrator');
CREATE TABLE IF NOT EXISTS "_appliance_unwatched" (
    "table" TEXT PRIMARY KEY COLLATE NOCASE
) WITHOUT ROWID;
INSERT INTO _appliance_unwatched VALUES('notes');
CREATE TABLE IF NOT EXISTS "_appliance_outbox" (
    id INTEGER PRIMARY KEY AUTOINCREMENT, shape, op, cut, v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15, v16, v17, v18, v19, v20, v21, v22, v23
);
INSERT INTO _appliance_outbox VALUES(1,NULL,4,NULL,'lobby','administrator',X'7b2268656c6c6f223a22776f726c64227d',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO _appliance_outbox VALUES(2,1,1,NULL,2,'table',120.0,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO _appliance_outbox VALUES(3,1,2,NULL,1,'chair',49.499999999999999998,0,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO _appliance_outbox VALUES(4,1,0,NULL,1,'chair',49.499999999999999998,1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE IF NOT EXISTS "_appliance_shape" (id INTEGER PRIMARY KEY, "table", layout);
INSERT INTO _appliance_shape VALUES(1,'orders','{"columns": [["id", "INTEGER", "INTEGER", "BINARY"], ["item", "TEXT", "TEXT", "BINARY"], ["total", "REAL", "REAL", "BINARY"], ["paid", "BOOLEAN", "NUMERIC", "BINARY"]], "key": [0], "rowid": false}');
INSERT INTO _appliance_shape VALUES(2,'notes','{"columns": [["text", "", "BLOB", "BINARY"]], "key": [], "rowid": true}');
CREATE TABLE IF NOT EXISTS "_appliance_scratch" (
    id INTEGER PRIMARY KEY, shape, part, fate, cut, k0, k1, k2, k3, k4, k5, k6, k7, v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15, v16, v17, v18, v19, v20, v21, v22, v23
);
CREATE TABLE notes(text);
DELETE FROM sqlite_sequence;
INSERT INTO sqlite_sequence VALUES('_appliance_outbox',4);
CREATE TRIGGER "_appliance_trim" AFTER INSERT ON "_appliance_outbox"
WHEN NEW.id % 64 = 0
BEGIN
DELETE FROM _appliance_outbox WHERE id <= NEW.id - 1000000;
END;
CREATE TRIGGER "_appliance_1_update" AFTER UPDATE ON "orders" FOR EACH ROW
WHEN CASE WHEN OLD."id" COLLATE BINARY IS NOT NEW."id" THEN 1 WHEN typeof(OLD."id")<>typeof(NEW."id") THEN 1 WHEN OLD."item" COLLATE BINARY IS NOT NEW."item" THEN 1 WHEN OLD."total" COLLATE BINARY IS NOT NEW."total" THEN 1 WHEN OLD."paid" COLLATE BINARY IS NOT NEW."paid" THEN 1 WHEN typeof(OLD."paid")<>typeof(NEW."paid") THEN 1 ELSE 0 END
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) VALUES(1,2,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN 1 WHEN OLD."item" COLLATE BINARY>='' AND length(CAST(OLD."item" AS BLOB))>1048576 THEN 1 WHEN OLD."total" COLLATE BINARY>='' AND length(CAST(OLD."total" AS BLOB))>1048576 THEN 1 WHEN OLD."paid" COLLATE BINARY>='' AND length(CAST(OLD."paid" AS BLOB))>1048576 THEN 1 END,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN x'' ELSE OLD."id" END,CASE WHEN OLD."item" COLLATE BINARY>='' AND length(CAST(OLD."item" AS BLOB))>1048576 THEN x'' ELSE OLD."item" END,CASE WHEN OLD."total" COLLATE BINARY>='' AND length(CAST(OLD."total" AS BLOB))>1048576 THEN x'' ELSE OLD."total" END,CASE WHEN OLD."paid" COLLATE BINARY>='' AND length(CAST(OLD."paid" AS BLOB))>1048576 THEN x'' ELSE OLD."paid" END);
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) VALUES(1,0,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN 1 WHEN NEW."item" COLLATE BINARY>='' AND length(CAST(NEW."item" AS BLOB))>1048576 THEN 1 WHEN NEW."total" COLLATE BINARY>='' AND length(CAST(NEW."total" AS BLOB))>1048576 THEN 1 WHEN NEW."paid" COLLATE BINARY>='' AND length(CAST(NEW."paid" AS BLOB))>1048576 THEN 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN x'' ELSE NEW."id" END,CASE WHEN NEW."item" COLLATE BINARY>='' AND length(CAST(NEW."item" AS BLOB))>1048576 THEN x'' ELSE NEW."item" END,CASE WHEN NEW."total" COLLATE BINARY>='' AND length(CAST(NEW."total" AS BLOB))>1048576 THEN x'' ELSE NEW."total" END,CASE WHEN NEW."paid" COLLATE BINARY>='' AND length(CAST(NEW."paid" AS BLOB))>1048576 THEN x'' ELSE NEW."paid" END);
END;
CREATE TRIGGER "_appliance_1_delete" AFTER DELETE ON "orders" FOR EACH ROW
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) VALUES(1,3,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN 1 WHEN OLD."item" COLLATE BINARY>='' AND length(CAST(OLD."item" AS BLOB))>1048576 THEN 1 WHEN OLD."total" COLLATE BINARY>='' AND length(CAST(OLD."total" AS BLOB))>1048576 THEN 1 WHEN OLD."paid" COLLATE BINARY>='' AND length(CAST(OLD."paid" AS BLOB))>1048576 THEN 1 END,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN x'' ELSE OLD."id" END,CASE WHEN OLD."item" COLLATE BINARY>='' AND length(CAST(OLD."item" AS BLOB))>1048576 THEN x'' ELSE OLD."item" END,CASE WHEN OLD."total" COLLATE BINARY>='' AND length(CAST(OLD."total" AS BLOB))>1048576 THEN x'' ELSE OLD."total" END,CASE WHEN OLD."paid" COLLATE BINARY>='' AND length(CAST(OLD."paid" AS BLOB))>1048576 THEN x'' ELSE OLD."paid" END);
DELETE FROM _appliance_scratch WHERE shape=1 AND k0=OLD.rowid;
END;
CREATE TRIGGER "_appliance_1_displaced_by_update" AFTER UPDATE ON "orders" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=1)
BEGIN
UPDATE _appliance_scratch SET fate=3 WHERE shape=1 AND NOT k0=OLD.rowid AND k0 NOT IN (SELECT rowid FROM "orders");
UPDATE _appliance_scratch SET fate=3 WHERE shape=1 AND NOT k0=OLD.rowid AND k0=NEW.rowid;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) SELECT shape,CASE part WHEN 0 THEN fate ELSE 0 END,cut,v0,v1,v2,v3 FROM _appliance_scratch WHERE shape=1 AND fate=3 ORDER BY k0,part;
DELETE FROM _appliance_scratch WHERE shape=1;
END;
CREATE TRIGGER "_appliance_1_insert_displacing" AFTER INSERT ON "orders" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=1)
BEGIN
UPDATE _appliance_scratch SET fate=3 WHERE shape=1 AND k0 NOT IN (SELECT rowid FROM "orders");
UPDATE _appliance_scratch SET fate=3 WHERE shape=1 AND k0=NEW.rowid;
UPDATE _appliance_scratch SET fate=2 WHERE shape=1 AND fate=3 AND k0=NEW.rowid;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) SELECT shape,CASE part WHEN 0 THEN fate ELSE 0 END,cut,v0,v1,v2,v3 FROM _appliance_scratch WHERE shape=1 AND fate=3 ORDER BY k0,part;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) SELECT shape,CASE part WHEN 0 THEN fate ELSE 0 END,cut,v0,v1,v2,v3 FROM _appliance_scratch WHERE shape=1 AND fate=2 ORDER BY k0,part;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) VALUES(1,CASE WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=1 AND fate=2) THEN 0 ELSE 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN 1 WHEN NEW."item" COLLATE BINARY>='' AND length(CAST(NEW."item" AS BLOB))>1048576 THEN 1 WHEN NEW."total" COLLATE BINARY>='' AND length(CAST(NEW."total" AS BLOB))>1048576 THEN 1 WHEN NEW."paid" COLLATE BINARY>='' AND length(CAST(NEW."paid" AS BLOB))>1048576 THEN 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN x'' ELSE NEW."id" END,CASE WHEN NEW."item" COLLATE BINARY>='' AND length(CAST(NEW."item" AS BLOB))>1048576 THEN x'' ELSE NEW."item" END,CASE WHEN NEW."total" COLLATE BINARY>='' AND length(CAST(NEW."total" AS BLOB))>1048576 THEN x'' ELSE NEW."total" END,CASE WHEN NEW."paid" COLLATE BINARY>='' AND length(CAST(NEW."paid" AS BLOB))>1048576 THEN x'' ELSE NEW."paid" END);
DELETE FROM _appliance_scratch WHERE shape=1;
END;
CREATE TRIGGER "_appliance_1_insert" AFTER INSERT ON "orders" FOR EACH ROW
WHEN NOT EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=1)
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1,v2,v3) VALUES(1,1,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN 1 WHEN NEW."item" COLLATE BINARY>='' AND length(CAST(NEW."item" AS BLOB))>1048576 THEN 1 WHEN NEW."total" COLLATE BINARY>='' AND length(CAST(NEW."total" AS BLOB))>1048576 THEN 1 WHEN NEW."paid" COLLATE BINARY>='' AND length(CAST(NEW."paid" AS BLOB))>1048576 THEN 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN x'' ELSE NEW."id" END,CASE WHEN NEW."item" COLLATE BINARY>='' AND length(CAST(NEW."item" AS BLOB))>1048576 THEN x'' ELSE NEW."item" END,CASE WHEN NEW."total" COLLATE BINARY>='' AND length(CAST(NEW."total" AS BLOB))>1048576 THEN x'' ELSE NEW."total" END,CASE WHEN NEW."paid" COLLATE BINARY>='' AND length(CAST(NEW."paid" AS BLOB))>1048576 THEN x'' ELSE NEW."paid" END);
END;
CREATE TRIGGER "_appliance_1_before_insert_0" BEFORE INSERT ON "orders" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM (SELECT 1 FROM "orders" WHERE "orders".rowid=NEW.rowid))
BEGIN
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1,v2,v3) SELECT 1,0,"orders".rowid,CASE WHEN "orders"."id" COLLATE BINARY>='' AND length(CAST("orders"."id" AS BLOB))>1048576 THEN 1 WHEN "orders"."item" COLLATE BINARY>='' AND length(CAST("orders"."item" AS BLOB))>1048576 THEN 1 WHEN "orders"."total" COLLATE BINARY>='' AND length(CAST("orders"."total" AS BLOB))>1048576 THEN 1 WHEN "orders"."paid" COLLATE BINARY>='' AND length(CAST("orders"."paid" AS BLOB))>1048576 THEN 1 END,CASE WHEN "orders"."id" COLLATE BINARY>='' AND length(CAST("orders"."id" AS BLOB))>1048576 THEN x'' ELSE "orders"."id" END,CASE WHEN "orders"."item" COLLATE BINARY>='' AND length(CAST("orders"."item" AS BLOB))>1048576 THEN x'' ELSE "orders"."item" END,CASE WHEN "orders"."total" COLLATE BINARY>='' AND length(CAST("orders"."total" AS BLOB))>1048576 THEN x'' ELSE "orders"."total" END,CASE WHEN "orders"."paid" COLLATE BINARY>='' AND length(CAST("orders"."paid" AS BLOB))>1048576 THEN x'' ELSE "orders"."paid" END FROM "orders" WHERE ("orders".rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=1 AND part=0)) AND ("orders".rowid=NEW.rowid);
END;
CREATE TRIGGER "_appliance_1_before_update_0" BEFORE UPDATE OF rowid,oid,_rowid_,"id" ON "orders" FOR EACH ROW
WHEN OLD.rowid<>NEW.rowid AND EXISTS(SELECT 1 FROM (SELECT 1 FROM "orders" WHERE "orders".rowid=NEW.rowid))
BEGIN
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1,v2,v3) SELECT 1,0,"orders".rowid,CASE WHEN "orders"."id" COLLATE BINARY>='' AND length(CAST("orders"."id" AS BLOB))>1048576 THEN 1 WHEN "orders"."item" COLLATE BINARY>='' AND length(CAST("orders"."item" AS BLOB))>1048576 THEN 1 WHEN "orders"."total" COLLATE BINARY>='' AND length(CAST("orders"."total" AS BLOB))>1048576 THEN 1 WHEN "orders"."paid" COLLATE BINARY>='' AND length(CAST("orders"."paid" AS BLOB))>1048576 THEN 1 END,CASE WHEN "orders"."id" COLLATE BINARY>='' AND length(CAST("orders"."id" AS BLOB))>1048576 THEN x'' ELSE "orders"."id" END,CASE WHEN "orders"."item" COLLATE BINARY>='' AND length(CAST("orders"."item" AS BLOB))>1048576 THEN x'' ELSE "orders"."item" END,CASE WHEN "orders"."total" COLLATE BINARY>='' AND length(CAST("orders"."total" AS BLOB))>1048576 THEN x'' ELSE "orders"."total" END,CASE WHEN "orders"."paid" COLLATE BINARY>='' AND length(CAST("orders"."paid" AS BLOB))>1048576 THEN x'' ELSE "orders"."paid" END FROM "orders" WHERE ("orders".rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=1 AND part=0) AND NOT "orders".rowid=OLD.rowid) AND ("orders".rowid=NEW.rowid);
END;
CREATE TRIGGER "_appliance_1_before_insert_clear" BEFORE INSERT ON "orders" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=1)
BEGIN
DELETE FROM _appliance_scratch WHERE shape=1;
END;
CREATE TRIGGER "_appliance_1_before_update_clear" BEFORE UPDATE ON "orders" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=1)
BEGIN
DELETE FROM _appliance_scratch WHERE shape=1;
END;
COMMIT;
