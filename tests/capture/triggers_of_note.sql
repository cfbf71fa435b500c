CREATE TRIGGER "_appliance_7_update" AFTER UPDATE ON "note" FOR EACH ROW
WHEN CASE WHEN OLD."id" COLLATE BINARY IS NOT NEW."id" THEN 1 WHEN typeof(OLD."id")<>typeof(NEW."id") THEN 1 WHEN OLD."word" COLLATE BINARY IS NOT NEW."word" THEN 1 ELSE 0 END
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,2,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN 1 WHEN OLD."word" COLLATE BINARY>='' AND length(CAST(OLD."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN x'' ELSE OLD."id" END,CASE WHEN OLD."word" COLLATE BINARY>='' AND length(CAST(OLD."word" AS BLOB))>1048576 THEN x'' ELSE OLD."word" END);
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,0,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN 1 WHEN NEW."word" COLLATE BINARY>='' AND length(CAST(NEW."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN x'' ELSE NEW."id" END,CASE WHEN NEW."word" COLLATE BINARY>='' AND length(CAST(NEW."word" AS BLOB))>1048576 THEN x'' ELSE NEW."word" END);
END;

CREATE TRIGGER "_appliance_7_delete" AFTER DELETE ON "note" FOR EACH ROW
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,3,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN 1 WHEN OLD."word" COLLATE BINARY>='' AND length(CAST(OLD."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN OLD."id" COLLATE BINARY>='' AND length(CAST(OLD."id" AS BLOB))>1048576 THEN x'' ELSE OLD."id" END,CASE WHEN OLD."word" COLLATE BINARY>='' AND length(CAST(OLD."word" AS BLOB))>1048576 THEN x'' ELSE OLD."word" END);
DELETE FROM _appliance_scratch WHERE shape=7 AND _appliance_scratch.k0=OLD.rowid COLLATE "BINARY";
END;

CREATE TRIGGER "_appliance_7_displaced_by_update" AFTER UPDATE ON "note" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7)
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) SELECT shape,CASE part WHEN 0 THEN 3 ELSE 0 END,cut,v0,v1 FROM _appliance_scratch WHERE shape=7 AND NOT (_appliance_scratch.k0=OLD.rowid COLLATE "BINARY") AND (NOT EXISTS(SELECT 1 FROM "note" WHERE _appliance_scratch.k0="note".rowid COLLATE "BINARY") OR _appliance_scratch.k0=NEW.rowid COLLATE "BINARY") ORDER BY k0,part;
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_insert_displacing" AFTER INSERT ON "note" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7)
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) SELECT shape,CASE part WHEN 0 THEN 3 ELSE 0 END,cut,v0,v1 FROM _appliance_scratch WHERE shape=7 AND (NOT EXISTS(SELECT 1 FROM "note" WHERE _appliance_scratch.k0="note".rowid COLLATE "BINARY") OR _appliance_scratch.k0=NEW.rowid COLLATE "BINARY") AND (_appliance_scratch.k0=NEW.rowid COLLATE "BINARY") IS NOT 1 ORDER BY k0,part;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) SELECT shape,CASE part WHEN 0 THEN 2 ELSE 0 END,cut,v0,v1 FROM _appliance_scratch WHERE shape=7 AND (NOT EXISTS(SELECT 1 FROM "note" WHERE _appliance_scratch.k0="note".rowid COLLATE "BINARY") OR _appliance_scratch.k0=NEW.rowid COLLATE "BINARY") AND _appliance_scratch.k0=NEW.rowid COLLATE "BINARY" ORDER BY k0,part;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,CASE WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7 AND _appliance_scratch.k0=NEW.rowid COLLATE "BINARY" AND NOT EXISTS(SELECT 1 FROM "note" WHERE _appliance_scratch.k0="note".rowid COLLATE "BINARY")) THEN 0 WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7 AND _appliance_scratch.k0=NEW.rowid COLLATE "BINARY" AND _appliance_scratch.k0=NEW.rowid COLLATE "BINARY") THEN 0 ELSE 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN 1 WHEN NEW."word" COLLATE BINARY>='' AND length(CAST(NEW."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN x'' ELSE NEW."id" END,CASE WHEN NEW."word" COLLATE BINARY>='' AND length(CAST(NEW."word" AS BLOB))>1048576 THEN x'' ELSE NEW."word" END);
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_insert" AFTER INSERT ON "note" FOR EACH ROW
WHEN NOT EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7)
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,1,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN 1 WHEN NEW."word" COLLATE BINARY>='' AND length(CAST(NEW."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN NEW."id" COLLATE BINARY>='' AND length(CAST(NEW."id" AS BLOB))>1048576 THEN x'' ELSE NEW."id" END,CASE WHEN NEW."word" COLLATE BINARY>='' AND length(CAST(NEW."word" AS BLOB))>1048576 THEN x'' ELSE NEW."word" END);
END;

CREATE TRIGGER "_appliance_7_before_insert" BEFORE INSERT ON "note" FOR EACH ROW
WHEN CASE WHEN EXISTS(SELECT 1 FROM "note" WHERE "note".rowid=NEW.rowid) THEN 1 WHEN EXISTS(SELECT 1 FROM "note" WHERE "note"."word"=NEW."word" COLLATE "NOCASE") THEN 1 ELSE 0 END
BEGIN
DELETE FROM _appliance_scratch WHERE shape=7;
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN 1 WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN x'' ELSE "note"."id" END,CASE WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE "note".rowid=NEW.rowid AND NOT EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7 AND part=0 AND _appliance_scratch.k0="note".rowid COLLATE "BINARY");
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN 1 WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN x'' ELSE "note"."id" END,CASE WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE "note"."word"=NEW."word" COLLATE "NOCASE" AND NOT EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7 AND part=0 AND _appliance_scratch.k0="note".rowid COLLATE "BINARY");
END;

CREATE TRIGGER "_appliance_7_before_update" BEFORE UPDATE OF rowid,oid,_rowid_,"id","word" ON "note" FOR EACH ROW
WHEN CASE WHEN OLD.rowid<>NEW.rowid AND EXISTS(SELECT 1 FROM "note" WHERE "note".rowid=NEW.rowid AND NOT "note".rowid=OLD.rowid COLLATE "BINARY") THEN 1 WHEN OLD."word" COLLATE BINARY IS NOT NEW."word" AND EXISTS(SELECT 1 FROM "note" WHERE "note"."word"=NEW."word" COLLATE "NOCASE" AND NOT "note".rowid=OLD.rowid COLLATE "BINARY") THEN 1 ELSE 0 END
BEGIN
DELETE FROM _appliance_scratch WHERE shape=7;
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN 1 WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN x'' ELSE "note"."id" END,CASE WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE "note".rowid=NEW.rowid AND NOT "note".rowid=OLD.rowid COLLATE "BINARY" AND NOT EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7 AND part=0 AND _appliance_scratch.k0="note".rowid COLLATE "BINARY");
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN 1 WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,CASE WHEN "note"."id" COLLATE BINARY>='' AND length(CAST("note"."id" AS BLOB))>1048576 THEN x'' ELSE "note"."id" END,CASE WHEN "note"."word" COLLATE BINARY>='' AND length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE "note"."word"=NEW."word" COLLATE "NOCASE" AND NOT "note".rowid=OLD.rowid COLLATE "BINARY" AND NOT EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7 AND part=0 AND _appliance_scratch.k0="note".rowid COLLATE "BINARY");
END;

