"""Configuration of the smallest Ceph cluster there is."""

from __future__ import annotations

__all__ = ["CONFIGURATION"]

CONFIGURATION = """\
[global]
fsid = {fsid}
mon initial members = a
mon host = {mon}
public network = 127.0.0.1/32
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms bind msgr1 = false
# Without keys there are no keyrings to make: a second less. All of it is on the loopback interface, for minutes.
auth cluster required = none
auth service required = none
auth client required = none
# RGW wants to encrypt what it says to the monitor, for which there must be keys.
ms mon client mode = crc
run dir = {folder}
# No sockets: their names have at most 107 bytes, and a test's folder may be longer.
admin socket =
pid file =
log to file = false
log to stderr = true
err to stderr = true
mon cluster log to file = false
crash dir = {folder}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 1000
# The disk is a file: how full the machine's own disk is must not stop the tests.
mon osd full ratio = .99
mon osd nearfull ratio = .98
mon osd backfillfull ratio = .985
osd failsafe full ratio = .995
mon data avail crit = 1
mon data avail warn = 2
# By default the monitor waits for more news before it decides: every step of a start would take a second.
paxos propose interval = 0.05
[mon.a]
mon data = {folder}/data/mon
[osd.0]
osd data = {folder}/data/osd
osd objectstore = {store}
memstore device bytes = {size}
bluestore block size = {size}
bluestore block create = true
bluestore block db create = false
bluestore block wal create = false
osd memory target = 939524096
osd op num shards = 2
osd class load list = *
osd class default list = *
# A killed gateway stays a listener of the cluster's notices for so long, and changes wait for its reply.
osd client watch timeout = 3
[client.rgw.a]
rgw frontends = {frontends}
rgw data = {folder}/data/rgw
rgw dynamic resharding = false
rgw thread pool size = 64
# Space of deleted objects comes back after seconds, not hours.
rgw gc obj min wait = 20
rgw gc processor period = 20
"""
"""Text of ceph.conf, to be formatted with fsid, mon, folder, store, size and frontends."""
