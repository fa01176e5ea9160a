from __future__ import annotations

from typing import Any

from mongod import MongoServer
from pymongo import MongoClient


def test_server_of_the_tests_is_a_replica_set_that_takes_writes(mongod: MongoServer, database_name: str) -> None:
    with MongoClient[dict[str, Any]](mongod.uri) as client:
        client[database_name]["items"].insert_one({"_id": "a"})

        assert client[database_name]["items"].count_documents({}) == 1
        assert client.admin.command("hello")["setName"]
