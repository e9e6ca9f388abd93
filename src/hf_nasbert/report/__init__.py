"""Scored children to one HTML file: figures to hover over, tables to sort, and how to extract what they show.

The file needs no network and nothing beside it. All text that comes from records is escaped, the page's own script is
named by its digest so that no other runs, and the same records give the same bytes.
"""

from hf_nasbert.report.findings import Findings as Findings
from hf_nasbert.report.findings import read_findings as read_findings
from hf_nasbert.report.page import render_search_report as render_search_report
