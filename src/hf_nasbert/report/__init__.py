"""Scored children, or a compression's table, to one HTML file: figures, a slider for the budget, and commands to copy.

The file needs no network and nothing beside it. All text that comes from records is escaped, the page's own script is
named by its digest so that no other runs, and the same records give the same bytes.
"""

from hf_nasbert.report.findings import Findings as Findings
from hf_nasbert.report.findings import read_findings as read_findings
from hf_nasbert.report.of_compression import Compressed as Compressed
from hf_nasbert.report.of_compression import is_compression as is_compression
from hf_nasbert.report.of_search import Searched as Searched
from hf_nasbert.report.reports import render_compression_report as render_compression_report
from hf_nasbert.report.reports import render_search_report as render_search_report
