"""Ray: it runs tasks, keeps the tables that they give, and makes again what is lost with a worker.

Its tasks read the files themselves, by the code that reads them on one machine, so that no type is changed on the way.
"""

from featurestore.engines.ray.engine import RayEngine
from featurestore.engines.ray.ray_frame import RayFrame

__all__ = ["RayEngine", "RayFrame"]
