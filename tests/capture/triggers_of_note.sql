CREATE TRIGGER "_appliance_7_update" AFTER UPDATE ON "note" FOR EACH ROW
WHEN CASE WHEN OLD."id" COLLATE BINARY IS NOT NEW."id" THEN 1 WHEN OLD."word" COLLATE BINARY IS NOT NEW."word" THEN 1 ELSE 0 END
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,2,CASE WHEN length(CAST(OLD."word" AS BLOB))>1048576 THEN 1 END,OLD."id",CASE WHEN length(CAST(OLD."word" AS BLOB))>1048576 THEN x'' ELSE OLD."word" END);
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,0,CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN 1 END,NEW."id",CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN x'' ELSE NEW."word" END);
END;

CREATE TRIGGER "_appliance_7_delete" AFTER DELETE ON "note" FOR EACH ROW
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,3,CASE WHEN length(CAST(OLD."word" AS BLOB))>1048576 THEN 1 END,OLD."id",CASE WHEN length(CAST(OLD."word" AS BLOB))>1048576 THEN x'' ELSE OLD."word" END);
DELETE FROM _appliance_scratch WHERE shape=7 AND k0=OLD.rowid;
END;

CREATE TRIGGER "_appliance_7_displaced_by_update" AFTER UPDATE ON "note" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7)
BEGIN
UPDATE _appliance_scratch SET fate=3 WHERE shape=7 AND NOT k0=OLD.rowid AND CASE WHEN k0=NEW.rowid THEN 1 WHEN k0 NOT IN (SELECT rowid FROM "note") THEN 1 ELSE 0 END;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) SELECT shape,CASE part WHEN 0 THEN fate ELSE 0 END,cut,v0,v1 FROM _appliance_scratch WHERE shape=7 AND fate IS NOT NULL ORDER BY fate DESC,k0,part;
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_insert_displacing" AFTER INSERT ON "note" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7)
BEGIN
UPDATE _appliance_scratch SET fate=CASE WHEN k0=NEW.rowid THEN 2 ELSE 3 END WHERE shape=7 AND CASE WHEN k0=NEW.rowid THEN 1 WHEN k0 NOT IN (SELECT rowid FROM "note") THEN 1 ELSE 0 END;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) SELECT shape,CASE part WHEN 0 THEN fate ELSE 0 END,cut,v0,v1 FROM _appliance_scratch WHERE shape=7 AND fate IS NOT NULL ORDER BY fate DESC,k0,part;
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,CASE WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7 AND fate=2) THEN 0 ELSE 1 END,CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN 1 END,NEW."id",CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN x'' ELSE NEW."word" END);
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_insert" AFTER INSERT ON "note" FOR EACH ROW
WHEN NOT EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7)
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,1,CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN 1 END,NEW."id",CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN x'' ELSE NEW."word" END);
END;

CREATE TRIGGER "_appliance_7_before_update_0" BEFORE UPDATE OF rowid,oid,_rowid_,"id" ON "note" FOR EACH ROW
WHEN OLD.rowid<>NEW.rowid AND EXISTS(SELECT 1 FROM (SELECT 1 FROM "note" WHERE "note".rowid=NEW.rowid))
BEGIN
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,"note"."id",CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE ("note".rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=7 AND part=0) AND NOT "note".rowid=OLD.rowid) AND ("note".rowid=NEW.rowid);
END;

CREATE TRIGGER "_appliance_7_before_update_1" BEFORE UPDATE OF "word" ON "note" FOR EACH ROW
WHEN OLD."word" COLLATE BINARY IS NOT NEW."word" AND EXISTS(SELECT 1 FROM (SELECT 1 FROM "note" WHERE "note"."word"=NEW."word"))
BEGIN
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,"note"."id",CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE ("note".rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=7 AND part=0) AND NOT "note".rowid=OLD.rowid) AND ("note"."word"=NEW."word");
END;

CREATE TRIGGER "_appliance_7_before_update_clear" BEFORE UPDATE ON "note" FOR EACH ROW
WHEN EXISTS(SELECT 1 FROM _appliance_scratch WHERE shape=7)
BEGIN
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_before_insert_all" BEFORE INSERT ON "note" FOR EACH ROW
WHEN CASE WHEN EXISTS(SELECT 1 FROM (SELECT 1 FROM "note" WHERE "note".rowid=NEW.rowid)) THEN 1 WHEN EXISTS(SELECT 1 FROM (SELECT 1 FROM "note" WHERE "note"."word"=NEW."word")) THEN 1 ELSE 0 END
BEGIN
DELETE FROM _appliance_scratch WHERE shape=7;
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,"note"."id",CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE ("note".rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=7 AND part=0)) AND ("note".rowid=NEW.rowid);
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,"note".rowid,CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN 1 END,"note"."id",CASE WHEN length(CAST("note"."word" AS BLOB))>1048576 THEN x'' ELSE "note"."word" END FROM "note" WHERE ("note".rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=7 AND part=0)) AND ("note"."word"=NEW."word");
END;

