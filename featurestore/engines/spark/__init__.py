"""Apache Spark, from version 4 on: it reads, shuffles, tries again and writes, by DataFrames and `mapInArrow` alone.

So the same code runs on Spark Connect, which is all that some clusters offer. Spark computes no value: keys are compared by it, and
nothing else.
"""

from featurestore.engines.spark.engine import SparkEngine
from featurestore.engines.spark.spark_frame import SparkFrame

__all__ = ["SparkEngine", "SparkFrame"]
