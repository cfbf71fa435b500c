#!/usr/bin/perl
# write.pl FILE: the scenes' writes through Perl's DBI and DBD::SQLite (an SQLite of its own).
use strict;
use warnings;
use DBI;

my $db = DBI->connect("dbi:SQLite:dbname=$ARGV[0]", "", "", {RaiseError => 1, AutoCommit => 1, sqlite_unicode => 1});
$db->sqlite_busy_timeout(10_000);
$db->do("INSERT INTO user_account(reference_id, name, email, password) VALUES(?, ?, ?, ?)", undef,
    "r1", "asdf", "asdf\@asfd.cm", "canary");
$db->do("UPDATE user_account SET version = 2, confirmed = 1 WHERE reference_id = ?", undef, "r1");
$db->begin_work;
$db->do("INSERT INTO orders(item, total) VALUES('never', 1)");
$db->rollback;
$db->begin_work;
$db->do("INSERT INTO orders(id, item, total) VALUES(?, ?, ?)", undef, 1, "chair \x{fc}", 49.5);
$db->do("UPDATE orders SET paid = 1");
$db->commit;
$db->do("DELETE FROM orders");
$db->disconnect;
