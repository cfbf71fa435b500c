CREATE TRIGGER "_appliance_7_update" AFTER UPDATE ON "note" FOR EACH ROW
WHEN CASE WHEN (OLD."id",OLD."word" COLLATE "BINARY") IS NOT (NEW."id",NEW."word") THEN 1 ELSE 0 END
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,2,NULL,OLD."id",CASE WHEN length(CAST(OLD."word" AS BLOB))>1048576 THEN 1819242087 ELSE OLD."word" END);
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,0,NULL,NEW."id",CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN 1819242087 ELSE NEW."word" END);
END;

CREATE TRIGGER "_appliance_7_delete" AFTER DELETE ON "note" FOR EACH ROW
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,3,NULL,OLD."id",CASE WHEN length(CAST(OLD."word" AS BLOB))>1048576 THEN 1819242087 ELSE OLD."word" END);
DELETE FROM _appliance_scratch WHERE shape=7 AND k0=OLD.rowid;
END;

CREATE TRIGGER "_appliance_7_displaced_by_update" AFTER UPDATE ON "note" FOR EACH ROW
WHEN 7 IN (SELECT shape FROM _appliance_scratch)
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) SELECT shape,CASE part WHEN 0 THEN 3 ELSE 0 END,cut,v0,v1 FROM _appliance_scratch WHERE shape=7 AND CASE WHEN k0=OLD.rowid THEN 0 WHEN k0=NEW.rowid THEN 1 WHEN k0 NOT IN (SELECT rowid FROM "note") THEN 1 ELSE 0 END ORDER BY k0,part;
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_insert" AFTER INSERT ON "note" FOR EACH ROW
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) VALUES(7,1,NULL,NEW."id",CASE WHEN length(CAST(NEW."word" AS BLOB))>1048576 THEN 1819242087 ELSE NEW."word" END);
END;

CREATE TRIGGER "_appliance_7_insert_displacing" AFTER INSERT ON "note" FOR EACH ROW
WHEN 7 IN (SELECT shape FROM _appliance_scratch)
BEGIN
INSERT INTO _appliance_outbox(shape,op,cut,v0,v1) SELECT shape,CASE part WHEN 0 THEN CASE WHEN k0=NEW.rowid THEN 2 ELSE 3 END ELSE 0 END,cut,v0,v1 FROM _appliance_scratch WHERE shape=7 AND CASE WHEN k0=NEW.rowid THEN 1 WHEN k0 NOT IN (SELECT rowid FROM "note") THEN 1 ELSE 0 END ORDER BY k0=NEW.rowid,k0,part;
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_before_update_0" BEFORE UPDATE OF rowid,oid,_rowid_,"id" ON "note" FOR EACH ROW
WHEN OLD.rowid<>NEW.rowid AND NEW.rowid IN (SELECT rowid FROM "note")
BEGIN
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,rowid,NULL,"id",CASE WHEN length(CAST("word" AS BLOB))>1048576 THEN 1819242087 ELSE "word" END FROM "note" WHERE (rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=7 AND part=0) AND NOT rowid=OLD.rowid) AND (rowid=NEW.rowid);
END;

CREATE TRIGGER "_appliance_7_before_update_1" BEFORE UPDATE OF "word" ON "note" FOR EACH ROW
WHEN OLD."word" COLLATE BINARY IS NOT NEW."word" AND NEW."word" IN (SELECT "word" FROM "note")
BEGIN
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,rowid,NULL,"id",CASE WHEN length(CAST("word" AS BLOB))>1048576 THEN 1819242087 ELSE "word" END FROM "note" WHERE (rowid NOT IN (SELECT k0 FROM _appliance_scratch WHERE shape=7 AND part=0) AND NOT rowid=OLD.rowid) AND ("word"=NEW."word");
END;

CREATE TRIGGER "_appliance_7_before_update_clear" BEFORE UPDATE ON "note" FOR EACH ROW
WHEN 7 IN (SELECT shape FROM _appliance_scratch)
BEGIN
DELETE FROM _appliance_scratch WHERE shape=7;
END;

CREATE TRIGGER "_appliance_7_before_insert" BEFORE INSERT ON "note" FOR EACH ROW
WHEN CASE WHEN NEW.rowid IN (SELECT rowid FROM "note") THEN 1 WHEN NEW."word" IN (SELECT "word" FROM "note") THEN 1 ELSE 0 END
BEGIN
DELETE FROM _appliance_scratch WHERE shape=7;
INSERT INTO _appliance_scratch(shape,part,k0,cut,v0,v1) SELECT 7,0,rowid,NULL,"id",CASE WHEN length(CAST("word" AS BLOB))>1048576 THEN 1819242087 ELSE "word" END FROM "note" WHERE rowid IN (SELECT rowid FROM "note" WHERE rowid=NEW.rowid UNION ALL SELECT rowid FROM "note" WHERE "word"=NEW."word");
END;

