"""Archives too big for one machine: pictures and videos in, Parquet out, on Ray Data.

    archive = Archive(["s3://bucket/photos"], "s3://bucket/faces", recursive=True)
    for receipt in archive.run("auto"):
        print(receipt.shard, receipt.faces)

Needs the extra ``archive``. The same code runs on a laptop (address "local") and on a cluster.
"""

from edgeface.archive.pipeline import Archive, Receipt, Summary

__all__ = ["Archive", "Receipt", "Summary"]
