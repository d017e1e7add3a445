"""The golden oracle: record a pass, compare another implementation with it, and find out which line of it is wrong."""

from nezha_np.oracle.attribution import Attribution, attribute
from nezha_np.oracle.bundle import Bundle
from nezha_np.oracle.bundle import load_bundle as load
from nezha_np.oracle.comparison import Comparison, compare
from nezha_np.oracle.diagnosis import Diagnosis
from nezha_np.oracle.doctor import diagnose
from nezha_np.oracle.jax_capture import capture_jax
from nezha_np.oracle.name_tables import name_tables
from nezha_np.oracle.onnx_capture import capture_onnx
from nezha_np.oracle.recording import record
from nezha_np.oracle.report import report
from nezha_np.oracle.standard import record_all, record_standard
from nezha_np.oracle.tf_capture import capture_tf
from nezha_np.oracle.torch_capture import capture_torch

__all__ = [
    "Attribution",
    "Bundle",
    "Comparison",
    "Diagnosis",
    "attribute",
    "capture_jax",
    "capture_onnx",
    "capture_tf",
    "capture_torch",
    "compare",
    "diagnose",
    "load",
    "name_tables",
    "record",
    "record_all",
    "record_standard",
    "report",
]
