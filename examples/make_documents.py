"""Write the binary files of `documents/` again: two PDFs and two Word files of the invented Marrow Lane Library.

    pip install reportlab python-docx
    python examples/make_documents.py              # into examples/documents
    python examples/make_documents.py some/folder  # or elsewhere

The other documents are plain text and are edited by hand. The committed files were made with reportlab 5.1.0 and
python-docx 1.2.0.

The texts: a blank line ends a block. A block is a paragraph, a heading ("# text"), a list item ("- text") or, in a Word
file, a row of a table ("| a | b"). "---" starts a new page of a PDF.
"""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path

ARCHIVE_GUIDE = """
# Guide to the local history archive

This guide is for people who want to use the archive of Marrow Lane Library for the first time. The archivist is Gwen
Halloran. She has one assistant, and eleven volunteers who list and repack.

# How the archive came about

The library was opened on 3 May 1911. The house and £8,200 for books were the gift of Hester Quill, the last owner of
the tannery in Tanner's Court, who had taught herself to read at the age of nineteen. The architect was Edwin
Thackeray.

The archive was founded in 1934, when the town clerk found four centuries of papers in a loft above the Corn Exchange,
being eaten by mice. On the night of 31 January 1953 the river came into the basement: 2,300 volumes were lost, and
the papers that were saved were dried on lines in the gasworks. Since then nothing that exists only once has been
stored below the first floor.

# What the archive holds

- 94 metres of papers of the town, its courts, schools and charities.

- About 11,400 photographs, of which 7,250 can be seen on the website.

- 212 maps and plans. The most used is the tithe map of 1841, in six sheets.

- The Elverstone Courier, bound, from its first issue in 1866 to 1997.

- 64 interviews on tape with people who worked in the tanneries and mills. They were recorded by Leonard Crabbe
between 1978 and 1985, and can be heard in the reading room.

The oldest piece is a lease of the fulling mill, written in 1487. Its seal is lost.

The strongroom is kept at 16 degrees and 48 per cent humidity. Visitors are not admitted to it.

---

# Using the reading room

The reading room is on the second floor, to the right of the lift. It is open on Tuesday and Thursday from 10:00 to
16:30, and on the first Saturday of the month from 10:00 to 13:00. It closes for lunch from 12:45 to 13:30.

There are nine seats. Please make an appointment at least three working days ahead, by e-mail to
archive@marrowlane.example or by telephone on 01632 960 152, and say what you wish to see. You need no library card,
but a reader's ticket, which is written on your first visit and is valid for five years.

# Rules of the room

- Pencils only. Pens, drinks, food, umbrellas and coats stay in the lockers outside.

- You may have three items on your table at a time. The last order is taken at 15:40.

- Leave papers in the order in which you found them. If you think the order is wrong, tell us and leave it.

- Bound volumes lie on the foam wedges. Gloves are worn for photographs, not for paper.

- You may take photographs with your own camera, without flash and without a stand. A camera permit costs £4 a day and
is free for pupils and students.

# What is closed

School registers are closed for 80 years after the last entry, hospital papers for 100 years, and papers of the
library's own staff for 60 years. For papers that are closed only because they are fragile there is a copy on film.
The archivist decides about exceptions; ask in writing and allow a month.

# Help by staff

We answer short questions for nothing: up to twenty minutes of searching for each person and month. Longer searches
are paid for as the price list says.

---

# Copies and permissions

A scan for private use costs £7.50 for each image and is sent within eight working days. Maps larger than A2 are
photographed in parts; each part counts as an image. A printed photograph on archival paper, 20 by 30 centimetres,
costs £16.

Anybody who wants to publish an image asks for permission first. The fee is £45 for a book or a film, and nothing for
theses, parish magazines and local societies. The credit line is: Marrow Lane Library, Elverstone, followed by the
number of the piece.

# Family history

The archive has the registers of St Osyth's parish from 1561 on microfilm: baptisms to 1912, marriages to 1926 and
burials to 1931. There is a gap from 1643 to 1655, when the sexton hid the books so well that two of them were never
found. The registers of the Quaker meeting begin in 1672.

The census returns from 1841 to 1921 can be searched on computer 12 in the library. Rate books, which name every
householder, begin in 1799 and are indexed by street.

# Giving papers to the archive

We collect papers, photographs and recordings that were made in Elverstone or tell of it. Please do not sort or clean
them before you have spoken with us. A deposit stays your property and is insured by us; a gift becomes ours. The
archive took in 27 collections in 2025, the largest being the records of the Wheatsheaf Brewery, in 141 boxes.

# Volunteers

Volunteers meet on Wednesdays from 13:30. At present they are listing the glass negatives of the photographer
Wilhelmina Strand, of which there are 3,870; they expect to finish in 2028.
"""

EMERGENCY_PROCEDURE = """
# Emergency procedure for staff

Revision 9, in force from 2 February 2026. Every member of staff reads this procedure when starting work and again
each April. A printed copy hangs in the staff kitchen and in the lobby cupboard. The head librarian, Nadia Fenwick, is
in command; when she is away it is the deputy, and after him the steward.

# Fire

If you find a fire, break the nearest red call point, and only then telephone: dial 9 for an outside line, then 999.
Fight a fire only if it is smaller than a waste-paper basket and the door is behind you.

When the alarm sounds:

- Leave by the nearest stairs. The lift goes down by itself and must not be called.

- Wardens put on the orange waistcoats and search their floor: Peter Lowe the ground floor, Bridget Sayle the first
floor, Gwen Halloran the second floor.

- People who cannot use the stairs wait with a warden at the refuge on the east landing. The evacuation chair hangs
there; two people are needed for it.

- The assembly point is the bandstand in Weir Gardens. Nobody goes back for coats.

The person at the enquiry desk takes the visitors' book and the blue emergency bag. In the bag are a torch, a
megaphone, foil blankets and the list of telephone numbers.

The alarm is tested every Wednesday at 8:40. A drill is held in April and in October; in October 2025 the building was
empty after 3 minutes and 50 seconds.

---

# Flood

The river gauge at Mill Bridge is on the website of the flood service. At 3.2 metres the deputy is told and the
basement pumps are tried. At 3.9 metres the basement store is cleared up to the third shelf. At 4.4 metres the
building is closed.

The 120 sandbags are in the shed in the courtyard; they go first to the door of the boiler room, then to the Weir
Street door. The main electricity switch is in the cupboard under the stairs and is marked with a yellow diamond.
Nobody enters the basement when there is water on the floor and the switch is on.

# Saving the collections

Take things out in this order: the minute books of the town (bay A), the glass negatives (bay C), the maps (plan
chests 1 to 4), then everything with a white tag. The library's own books come last: they can be bought again.

Wet paper is not opened, not wiped and not pressed. It is wrapped in crates lined with polythene and must be frozen
within 48 hours. The cold store of Harbottle Fisheries has promised us room for 300 crates. The conservator on call is
Imogen Vance of Northway Conservation, 01632 960 139, at any hour.

# Gas and water

If you smell gas, open windows, touch no switch, and clear the building by voice, not by the alarm. The gas valve is
outside, behind the bicycle stand; a quarter turn closes it. The stopcock for water is in the cleaner's room on the
ground floor.

---

# Illness and injury

First aiders are Ines Okafor and Ravi Menon; the rota at the desk says who is on duty. First aid boxes are at the
enquiry desk, in the workshop and in the archive. The defibrillator hangs beside the lift on the ground floor. Its
cabinet opens without a code, and its battery is replaced every three years, next in March 2027.

Do not give medicines, not even a painkiller. If an ambulance is called, send somebody to Weir Street, since the lane
is too narrow for it.

# A missing child

Whoever is told asks for the child's name, age and clothes and telephones the desk. The desk announces: Would Captain
Finch please come to the desk. On this, both doors are watched and no child leaves with anybody before the parent has
seen them. If the child is not found within ten minutes, call the police.

# Threats and violence

Your own safety comes first. Do not block anybody's way out. The silent button under the enquiry desk calls the
security firm, Castellan, whose people promise to be there within 12 minutes. A person can be banned for a day by any
member of staff, for up to six months by the head librarian, and for longer only by the board.

# Failure of power or network

Emergency lights burn for three hours. If the power has not come back after 40 minutes, the library closes. Loans are
written into the grey notebook and typed in later. The server has a battery for 25 minutes and then shuts itself down.

# Afterwards

Whoever was in charge writes a report on form E4 within 24 hours. Journalists are sent to Nadia Fenwick; nobody else
speaks for the library. Staff who were involved are offered a talk with a counsellor, in working time.
"""

HOME_DELIVERY = """
# Home delivery

Home delivery brings books, films and audiobooks to members who cannot come to the library because of age, illness,
disability or because they care for somebody. It is free. The coordinator is Marjorie Teale, 01632 960 127, on Monday
to Thursday mornings.

## Who may join

You must be a member and live within seven miles of Marrow Lane. No doctor's certificate is asked for. People who are
housebound for a short time only, for instance after an operation, may join for eight weeks and leave again.

## How it works

- Marjorie visits you once, for about an hour, and writes a reading profile: what you like, what you cannot stand, the
size of print, and whether the bell is loud enough.

- A volunteer brings a green canvas bag with up to twelve items every third week and takes the last one away.

- You keep everything until the next visit. There are no late fees, and nothing needs to be renewed.

- If the choice was bad, say so. The slip in the bag has a box for it.

## Rounds

| round | day | area | driver

| Heron | Tuesday afternoon | town centre and Tanner's Row | Keith Mottram

| Kingfisher | Wednesday morning | Upper Elver and Saltby | Fatima Darr

| Dipper | Friday morning | Cold Haugh and the moor farms | Joan Pettifer

## Volunteers

There are 26 volunteers. Each has been checked by the disclosure service and carries a badge with a photograph; please
look at it before you open. Volunteers may not take money, change bandages or do the shopping, however kind the
request. They are paid 48p a mile if they use their own car.

New volunteers are trained on two mornings, in February and in September, and go on three rounds with somebody
experienced before they drive alone.

## Care homes

Six care homes get a box of 50 books every two months instead of bags. The largest is Larchfield House with 84
residents. Boxes have a theme; in the winter of 2025 it was the sea.

## Numbers

On 31 December 2025 the service had 143 members, of whom the oldest was 101. The van drove 4,960 miles in the year. It
is electric, is charged overnight in Tanner's Court, and was given by the Rotary Club in 2022.
"""

BOARD_MINUTES = """
# Minutes of the board, 12 March 2026

Held in the Birch Room from 18:00 to 20:25. Present: Judith Amsel (chair), Oliver Stant (treasurer), Councillor
Desmond Achebe, Priya Ramanathan, Harriet Osei (for the Friends), Nadia Fenwick (head librarian, without a vote).
Apologies: Professor Ewan Laidlaw. Minutes: Tomasz Birch.

## 1. Minutes of the last meeting

The minutes of 11 December 2025 were approved after the spelling of the brewery's name had been corrected.

## 2. Roof over the east wing

Three offers had been received. The contract was given to Pellow and Daughters of Saltby, whose offer was not the
cheapest but came with a guarantee of 20 years. Work begins on 15 June 2026 and takes seven weeks. The second floor
stays open except for the pods. Carried by four votes, with one abstention.

## 3. Opening on Monday

Priya Ramanathan moved that the library open on Monday afternoons as a trial of six months. The head librarian put the
cost at £17,900. Councillor Achebe thought that longer hours on Saturday would serve more people. The motion was lost
by two votes to three. The head librarian will bring a paper on Saturdays to the next meeting.

## 4. Fees

The treasurer asked whether late fees should be abolished, as in 41 per cent of the libraries of the county. It was
agreed to look at the figures of a full year first. The matter comes back in March 2027.

## 5. Seed library

The Allotment Society offers a cabinet with 90 drawers for a seed library in the lobby. Accepted with thanks. It will
be opened on 2 May 2026 by the mayor.

## 6. Complaints

There had been 23 complaints since October: eleven about the temperature on the first floor, five about telephones,
four about the café's queue, and three about the heron on the new sign, which some think is a crane. No action on the
heron.

## 7. Staff

The board noted with regret that Bridget Sayle will retire on 31 August 2026 after 29 years. Her post will be
advertised in May.

## 8. Any other business and next meeting

Harriet Osei reported that the Friends will pay for a second piano stool. The next meeting is on 11 June 2026 at
18:00, in the Alder Room because of the number of guests expected.
"""


def blocks_of(text: str) -> list[str]:
    """The blocks of a text, each on one line."""
    return [" ".join(block.split()) for block in text.strip().split("\n\n")]


def write_pdf(path: Path, title: str, text: str) -> None:
    """A4, one page for each part between "---" lines, with a running foot."""
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

    body = ParagraphStyle("body", fontName="Times-Roman", fontSize=11, leading=14.5, spaceAfter=7)
    item = ParagraphStyle("item", parent=body, leftIndent=16, bulletIndent=4, spaceAfter=4)
    head = ParagraphStyle("head", fontName="Helvetica-Bold", fontSize=14, leading=18, spaceBefore=8, spaceAfter=6)

    pages = [blocks_of(page) for page in text.split("\n---\n")]

    def flowable(block: str) -> Paragraph:
        if block.startswith("# "):
            return Paragraph(block[2:], head)
        if block.startswith("- "):
            return Paragraph(block[2:], item, bulletText="•")
        return Paragraph(block, body)

    class Template(SimpleDocTemplate):
        def afterPage(self) -> None:  # after, not before: extraction gives text in the order in which it was drawn
            self.canv.setFont("Helvetica", 8)
            self.canv.drawCentredString(A4[0] / 2, 36, f"{title} · page {self.canv.getPageNumber()} of {len(pages)}")

    story: list[Paragraph | PageBreak] = []
    for number, blocks in enumerate(pages):
        story += [PageBreak()] if number else []
        story += [flowable(block) for block in blocks]
    # invariant: no date and no random id inside, so that the same text gives the same bytes.
    document = Template(str(path), pagesize=A4, title=title, author="Marrow Lane Library", invariant=1)
    document.build(story)
    if document.page != len(pages):
        raise ValueError(
            f"{path.name} has {document.page} pages instead of {len(pages)}: shorten a page that ran over."
        )


def write_docx(path: Path, title: str, text: str) -> None:
    """Headings, paragraphs, bullet lists and one table, with Word's own styles."""
    from docx import Document

    document = Document()
    document.core_properties.title = title
    document.core_properties.author = "Marrow Lane Library"
    document.core_properties.created = document.core_properties.modified = datetime(2026, 3, 16, 9, 0)
    table = None
    for block in blocks_of(text):
        mark, _, content = block.partition(" ")
        if mark in ("#", "##"):
            document.add_heading(content, level=len(mark))
        elif mark == "-":
            document.add_paragraph(content, style="List Bullet")
        elif mark == "|":
            cells = [cell.strip() for cell in content.split("|")]
            table = table or document.add_table(rows=0, cols=len(cells), style="Table Grid")
            for cell, value in zip(table.add_row().cells, cells, strict=True):
                cell.text = value
        else:
            document.add_paragraph(block)
    document.save(str(path))


def main() -> None:
    """Write the four files below the folder named on the command line, or below `documents/` beside this script."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "documents"
    for folder in ("archive", "services", "staff"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_pdf(root / "archive/local-history-guide.pdf", "Guide to the local history archive", ARCHIVE_GUIDE)
    write_pdf(root / "staff/emergency-procedure.pdf", "Emergency procedure for staff", EMERGENCY_PROCEDURE)
    write_docx(root / "services/home-delivery.docx", "Home delivery", HOME_DELIVERY)
    write_docx(root / "staff/board-minutes-2026-03-12.docx", "Minutes of the board, 12 March 2026", BOARD_MINUTES)


if __name__ == "__main__":
    main()
